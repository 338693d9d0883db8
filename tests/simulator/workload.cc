#include "tests/simulator/workload.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"

namespace weft {

Workload::Workload(const Plan& plan, uint64_t seed) : plan_(plan), random_(seed) {
  for (int i = 0; i < plan.clients.num_families; ++i) {
    std::vector<int32_t>& family = families_.emplace_back();
    for (int64_t p = 0; p < plan.limits.max_model_len; ++p)
      family.push_back(random_.Int(0, plan.limits.vocab_size - 1));
  }
}

std::string Workload::TenantName(int tenant) { return absl::StrCat("tenant-", tenant); }

std::vector<SimRequest> Workload::DrawGroup(int first) {
  const ClientMix& mix = plan_.clients;
  SimRequest request;
  request.tenant = random_.Int(0, mix.num_tenants - 1);
  if (random_.Chance(mix.asks_class)) request.priority = static_cast<Priority>(random_.Int(0, kNumPriorities - 1));
  request.prompt = DrawPrompt();
  request.stop.max_tokens = random_.Int(1, mix.max_output);
  if (random_.Chance(0.9)) {  // the others don't fit
    const int64_t capacity = int64_t{plan_.limits.num_blocks} * plan_.limits.block_size;
    const auto most = static_cast<size_t>(std::min(plan_.limits.max_model_len, capacity));
    if (request.prompt.size() >= most) request.prompt.resize(std::max<size_t>(1, most - 1));
    request.stop.max_tokens = std::clamp(static_cast<int>(most - request.prompt.size()), 1, request.stop.max_tokens);
  }
  if (random_.Chance(mix.has_stop)) {
    const int count = random_.Int(1, 3);
    for (int i = 0; i < count; ++i) request.stop.stop_token_ids.push_back(random_.Int(0, plan_.limits.vocab_size - 1));
  }
  SamplingParams& sampling = request.sampling;
  sampling.seed = (plan_.seed << 16) + static_cast<uint64_t>(first);
  sampling.score_prompt = random_.Chance(mix.scores_prompt);
  if (sampling.score_prompt) sampling.num_logprobs = 0;
  if (random_.Chance(0.1)) sampling.presence_penalty = 0.5f;
  if (random_.Chance(mix.has_deadline)) {
    request.patience = absl::Microseconds(plan_.step_us * random_.Between(0, 100));
  }
  DrawScope(request);
  std::vector<SimRequest> choices(static_cast<size_t>(random_.Int(1, mix.max_choices)), request);
  for (size_t i = 0; i < choices.size(); ++i) {
    choices[i].sampling.sequence = static_cast<uint32_t>(i);
    if (!choices[i].scope.has_value()) choices[i].scope_tag = (uint64_t{1} << 32) + static_cast<uint64_t>(first) + i;
    Answer(choices[i], plan_.limits.vocab_size);
    DrawTrouble(choices[i]);
  }
  return choices;
}

std::vector<int32_t> Workload::DrawPrompt() {
  const std::vector<int32_t>& family = families_[random_.Next() % families_.size()];
  const int length = random_.Int(1, plan_.clients.max_prompt);
  const int common = random_.Chance(0.2) ? 0 : random_.Chance(0.3) ? length : random_.Int(0, length);
  std::vector<int32_t> prompt(family.begin(), family.begin() + common);
  while (static_cast<int>(prompt.size()) < length) prompt.push_back(random_.Int(0, plan_.limits.vocab_size - 1));
  return prompt;
}

void Workload::DrawScope(SimRequest& request) {
  if (random_.Chance(plan_.clients.is_unscoped)) return;
  const int salt = random_.Chance(plan_.clients.has_salt) ? random_.Int(1, 2) : 0;
  const int tenant = plan_.shares_all_prefixes ? -1 : request.tenant;
  request.scope = ScopeKey(tenant < 0 ? std::string() : TenantName(tenant), "model", absl::StrCat(salt));
  request.scope_tag = static_cast<uint64_t>((tenant + 1) * 4 + salt);
}

void Workload::DrawTrouble(SimRequest& request) {
  const ClientMix& mix = plan_.clients;
  const int num_draws =
      static_cast<int>(request.golden.size()) + (request.golden_reason == FinishReason::kStop ? 1 : 0);
  if (random_.Chance(mix.has_nan)) {
    const int first = request.sampling.score_prompt && request.num_prompt() > 1 ? 1 : request.num_prompt();
    request.nan_position = random_.Int(first, request.num_prompt() + num_draws - 1);
  }
  // A position that it must compute itself before it can end.
  if (random_.Chance(mix.is_poison)) request.poison_position = request.num_prompt() - 1 + random_.Int(0, num_draws - 1);
  if (random_.Chance(mix.is_cancelled)) request.cancel_after_us = plan_.step_us * random_.Between(0, 60);
  request.stops_reading = random_.Chance(mix.stops_reading);
}

std::shared_ptr<const TenantPolicies> Workload::DrawPolicies() {
  auto policies = std::make_shared<TenantPolicies>();
  policies->others = DrawPolicy();
  for (int tenant = 0; tenant < plan_.clients.num_tenants; ++tenant) {
    if (random_.Chance(0.7)) policies->named[TenantName(tenant)] = DrawPolicy();
  }
  return policies;
}

TenantPolicy Workload::DrawPolicy() {
  TenantPolicy policy;
  policy.weight = random_.Of({0.25, 1.0, 1.0, 3.0, 10.0});
  if (random_.Chance(0.3)) policy.max_running = random_.Int(0, 4);
  if (plan_.scenario != Scenario::kSwarm) {
    policy.max_running = std::max<int64_t>(policy.max_running, 1);
    return policy;
  }
  if (random_.Chance(0.2)) policy.max_queued = random_.Int(0, 10);
  if (random_.Chance(0.2)) policy.max_tokens_per_minute = random_.Int(1, 2000);
  return policy;
}

}  // namespace weft
