#include "tests/simulator/plan.h"

#include <algorithm>

#include "tests/simulator/random.h"

namespace weft {
namespace {

void DrawMachine(Random& random, Plan& plan) {
  EngineLimits& limits = plan.limits;
  limits.block_size = random.Of({1, 2, 3, 4, 4, 8, 16});
  limits.max_model_len = random.Of({8, 16, 32, 48, 48, 96});
  const int one_request = static_cast<int>((limits.max_model_len + limits.block_size - 1) / limits.block_size);
  limits.max_num_seqs = random.Int(1, 8);
  switch (random.Int(0, 3)) {
    case 0:
      limits.num_blocks = one_request;
      break;
    case 1:
      limits.num_blocks = random.Int(std::max(1, one_request / 2), one_request + 2);  // some requests never fit
      break;
    case 2:
      limits.num_blocks = random.Int(one_request, 3 * one_request);
      break;
    default:
      limits.num_blocks = one_request * (limits.max_num_seqs + 1);
  }
  limits.max_num_batched_tokens = random.Chance(0.3) ? random.Int(1, 8) : random.Int(4, 64);
  limits.vocab_size = random.Of({2, 10, 100, 1000});
  limits.max_num_scores = random.Of({1, 2, 8, 64});
  plan.max_in_flight = random.Chance(0.8) ? 2 : 1;
  plan.num_replicas = random.Chance(0.4) ? 1 : random.Int(2, 4);
  plan.step_us = random.Of({200, 1000, 10000});
  plan.token_us = random.Of({0, 10, 200});
  plan.interleaves = random.Sometimes(0.7, 0.5);
}

void DrawOptions(Random& random, Plan& plan) {
  plan.scheduler.max_prefill_share = random.Of({0.1, 0.5, 1.0});
  if (random.Chance(0.3)) plan.scheduler.max_itl = absl::Microseconds(random.Between(500, 50000));
  plan.dispatcher.max_affinity_wait =
      random.Chance(0.8) ? absl::Milliseconds(random.Between(1, 200)) : absl::ZeroDuration();
  plan.queue.max_requests = random.Chance(0.6) ? 1024 : random.Int(2, 24);
  plan.queue.leave_room = random.Chance(0.3);
  plan.queue.output_token_price = random.Of({1.0, 2.0, 3.5});
  plan.queue.cached_token_price = random.Of({0.0, 0.1, 1.0});
  plan.queue.scored_token_price = random.Of({1.0, 8.0});
  if (random.Chance(0.15)) plan.queue.max_time_to_first_token = absl::Milliseconds(random.Between(5, 2000));
  plan.shares_all_prefixes = random.Chance(0.2);
}

void DrawClients(Random& random, Plan& plan) {
  ClientMix& mix = plan.clients;
  mix.num_groups = random.Int(3, 40);
  mix.num_tenants = random.Chance(0.005) ? 2000 : random.Int(1, 5);
  if (mix.num_tenants > 5) mix.num_groups = 150;  // more names than the queue keeps accounts of those who idle
  mix.num_families = random.Int(1, 4);
  mix.max_choices = random.Chance(0.4) ? random.Int(2, 5) : 1;
  const int longest = static_cast<int>(plan.limits.max_model_len);
  mix.max_prompt = random.Int(1, longest);
  mix.max_output = random.Int(1, longest);
  mix.mean_gap_us = plan.step_us * random.Of({0, 1, 5, 20});
  mix.max_prepare_us = random.Chance(0.5) ? 0 : plan.step_us * random.Int(1, 10);
  mix.is_unscoped = random.Chance(0.15) ? 1 : random.Sometimes(0.3, 0.3);
  mix.has_salt = random.Sometimes(0.2, 0.5);
  mix.scores_prompt = random.Sometimes(0.3, 0.6);
  mix.has_stop = random.Sometimes(0.5, 1);
  mix.has_deadline = random.Sometimes(0.3, 0.5);
  mix.is_cancelled = random.Sometimes(0.5, 0.6);
  mix.is_abandoned = random.Sometimes(0.2, 0.3);
  mix.stops_reading = random.Sometimes(0.2, 0.5);
  mix.has_nan = random.Sometimes(0.25, 0.3);
  mix.is_poison = random.Sometimes(0.2, 0.15);
  mix.asks_class = random.Sometimes(0.4, 0.6);
}

void DrawFaults(Random& random, Plan& plan) {
  if (random.Chance(0.3)) return;  // a mix of its own: clients alone are trouble enough
  plan.steps.dies = random.Sometimes(0.5, 0.05);
  plan.steps.is_late = random.Sometimes(0.2, 0.02);
  plan.steps.comes_twice = random.Sometimes(0.3, 0.2);
  plan.steps.is_miscounted = random.Sometimes(0.1, 0.02);
  plan.steps.is_reordered = random.Sometimes(0.1, 0.02);
  plan.num_reloads = random.Chance(0.3) ? random.Int(1, 6) : 0;
  plan.num_clock_jumps = random.Chance(0.2) ? random.Int(1, 5) : 0;
  plan.shuts_down = random.Chance(0.2);
  plan.drops_all = plan.shuts_down && random.Chance(0.5);
  plan.gives_up = random.Chance(0.05);
}

void MakeCalm(Random& random, Plan& plan) {
  plan.num_replicas = 1;
  plan.queue.max_requests = 1024;
  plan.queue.max_time_to_first_token = absl::InfiniteDuration();
  ClientMix& mix = plan.clients;
  mix.num_tenants = std::min(mix.num_tenants, 5);
  mix.num_groups = std::min(mix.num_groups, 15);
  mix.max_choices = random.Int(1, 4);
  mix.is_unscoped = random.Sometimes(0.3, 0.3);
  mix.has_deadline = mix.is_cancelled = mix.is_abandoned = mix.has_nan = mix.is_poison = 0;
  // Nothing is ever evicted, or seldom.
  const int64_t num_tokens =
      int64_t{mix.num_groups} * mix.max_choices * (plan.limits.max_model_len + plan.limits.block_size);
  plan.limits.num_blocks = static_cast<int>(std::min<int64_t>(num_tokens / plan.limits.block_size + 1, 512));
}

void MakeFair(Random& random, Plan& plan) {
  plan.queue.max_requests = 1024;
  plan.queue.leave_room = false;
  plan.queue.max_time_to_first_token = absl::InfiniteDuration();
  ClientMix& mix = plan.clients;
  mix.num_tenants = random.Int(2, 4);
  mix.num_groups = random.Int(20, 60);
  mix.max_choices = 1;
  mix.mean_gap_us = plan.step_us / 4;
  mix.max_prepare_us = 0;
  mix.is_unscoped = 1;
  mix.asks_class = random.Sometimes(0.5, 0.5);
  mix.has_deadline = mix.is_cancelled = mix.is_abandoned = mix.has_nan = mix.is_poison = 0;
}

}  // namespace

bool Plan::HasNoPasses() const {
  return clients.is_unscoped >= 1 && steps.dies + steps.is_miscounted + steps.is_reordered + clients.is_poison == 0;
}

Plan DrawPlan(uint64_t seed) {
  Random random(seed ^ 0x77656674);
  Plan plan;
  plan.seed = seed;
  const double which = random.Unit();
  plan.scenario = which < 0.75 ? Scenario::kSwarm : which < 0.85 ? Scenario::kCalm : Scenario::kFair;
  DrawMachine(random, plan);
  DrawOptions(random, plan);
  DrawClients(random, plan);
  switch (plan.scenario) {
    case Scenario::kSwarm:
      DrawFaults(random, plan);
      break;
    case Scenario::kCalm:
      MakeCalm(random, plan);
      break;
    case Scenario::kFair:
      MakeFair(random, plan);
      break;
  }
  plan.num_restarts = random.Chance(0.8) ? 1000 : random.Int(0, 4);
  plan.restart_us = plan.step_us * random.Int(1, 30);
  plan.dispatcher.num_replicas = plan.num_replicas;
  plan.scheduler.tell_cache_changes = plan.num_replicas > 1;
  plan.queue.even_tokens = random.Of({0.0, 10.0, 200.0});
  plan.queue.max_credit = random.Of({0.0, 50.0, 500.0});
  plan.limits.num_stages = random.Of({1, 1, 1, 2, 3});
  if (plan.max_in_flight > 1) plan.max_in_flight = 2 * plan.limits.num_stages;
  return plan;
}

}  // namespace weft
