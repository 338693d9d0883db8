#include "engine/engine_stats.h"

#include <algorithm>
#include <cstddef>
#include <map>

namespace weft {
namespace {

void Subtract(const CommStats& earlier, CommStats& stats) {
  for (size_t i = 0; i < kNumCommOps; ++i) {
    stats.ops[i].calls -= earlier.ops[i].calls;
    stats.ops[i].bytes -= earlier.ops[i].bytes;
    stats.ops[i].waiting -= earlier.ops[i].waiting;
    stats.ops[i].total -= earlier.ops[i].total;
  }
}

void Subtract(const RankStats& earlier, RankStats& stats) {
  stats.busy -= earlier.busy;
  stats.waiting_in_stage -= earlier.waiting_in_stage;
  stats.waiting_for_stages -= earlier.waiting_for_stages;
  stats.idle -= earlier.idle;
  stats.num_steps -= earlier.num_steps;
  Subtract(earlier.tensor_group, stats.tensor_group);
  Subtract(earlier.stages, stats.stages);
  const size_t num_experts = std::min(earlier.expert_tokens.size(), stats.expert_tokens.size());
  for (size_t i = 0; i < num_experts; ++i) stats.expert_tokens[i] -= earlier.expert_tokens[i];
}

// An engine that was opened again counts from zero.
bool IsOfOneEngine(const EngineStats& earlier, const EngineStats& later) {
  if (earlier.ranks.size() != later.ranks.size() || later.with_work < earlier.with_work) return false;
  for (size_t i = 0; i < later.ranks.size(); ++i) {
    if (later.ranks[i].num_steps < earlier.ranks[i].num_steps) return false;
  }
  return true;
}

}  // namespace

EngineStats Since(const EngineStats& earlier, const EngineStats& later) {
  EngineStats period = later;
  if (!IsOfOneEngine(earlier, later)) return period;
  period.with_work -= earlier.with_work;
  for (size_t i = 0; i < period.ranks.size(); ++i) Subtract(earlier.ranks[i], period.ranks[i]);
  return period;
}

double BubbleRatio(const EngineStats& period) {
  absl::Duration at_work;
  for (const RankStats& rank : period.ranks) at_work += rank.in_stage();
  const absl::Duration whole = static_cast<int64_t>(period.ranks.size()) * period.with_work;
  if (whole <= absl::ZeroDuration()) return 0;
  return std::clamp(1 - absl::FDivDuration(at_work, whole), 0.0, 1.0);
}

double StageImbalance(const EngineStats& period) {
  std::map<int, absl::Duration> stages;  // stages have equally many ranks: sums do for means
  for (const RankStats& rank : period.ranks) stages[rank.stage] += rank.in_stage();
  absl::Duration sum, slowest;
  for (const auto& [stage, at_work] : stages) {
    sum += at_work;
    slowest = std::max(slowest, at_work);
  }
  if (sum <= absl::ZeroDuration()) return 1;
  return static_cast<double>(stages.size()) * absl::FDivDuration(slowest, sum);
}

double ExpertImbalance(const EngineStats& period) {
  std::map<int, std::map<int, int64_t>>
      stages;  // tokens by stage and expert: ranks that share an expert count the same
  for (const RankStats& rank : period.ranks) {
    int expert = rank.first_expert;
    for (const int64_t tokens : rank.expert_tokens) stages[rank.stage][expert++] = tokens;
  }
  std::map<int, int64_t> experts;
  for (const auto& [stage, loads] : stages) {
    for (const auto& [expert, tokens] : loads) experts[expert] += tokens;
  }
  int64_t sum = 0, most = 0;
  for (const auto& [expert, tokens] : experts) {
    sum += tokens;
    most = std::max(most, tokens);
  }
  if (sum <= 0) return 1;
  return static_cast<double>(experts.size()) * static_cast<double>(most) / static_cast<double>(sum);
}

}  // namespace weft
