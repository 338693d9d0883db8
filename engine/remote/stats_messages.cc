#include "engine/remote/stats_messages.h"

#include <algorithm>

namespace weft {
namespace {

constexpr int kNumbersPerOp = 4;
constexpr int kMaxExperts = 1 << 16;

template <typename Repeated>
void WriteOps(const CommStats& stats, Repeated& field) {
  for (const CommOpStats& op : stats.ops) {
    field.Add(op.calls);
    field.Add(op.bytes);
    field.Add(absl::ToInt64Nanoseconds(op.waiting));
    field.Add(absl::ToInt64Nanoseconds(op.total));
  }
}

template <typename Repeated>
CommStats ReadOps(const Repeated& field) {
  CommStats stats;
  const int count = std::min(static_cast<int>(kNumCommOps), field.size() / kNumbersPerOp);
  for (int i = 0; i < count; ++i) {
    const int first = i * kNumbersPerOp;
    stats.ops[static_cast<size_t>(i)] = {.calls = field.Get(first),
                                         .bytes = field.Get(first + 1),
                                         .waiting = absl::Nanoseconds(field.Get(first + 2)),
                                         .total = absl::Nanoseconds(field.Get(first + 3))};
  }
  return stats;
}

}  // namespace

void WriteStats(const RankStats& stats, v1::RankStats& message) {
  message.set_stage(stats.stage);
  message.set_tp_rank(stats.tp_rank);
  message.set_busy_ns(absl::ToInt64Nanoseconds(stats.busy));
  message.set_waiting_in_stage_ns(absl::ToInt64Nanoseconds(stats.waiting_in_stage));
  message.set_waiting_for_stages_ns(absl::ToInt64Nanoseconds(stats.waiting_for_stages));
  message.set_idle_ns(absl::ToInt64Nanoseconds(stats.idle));
  message.set_num_steps(stats.num_steps);
  WriteOps(stats.tensor_group, *message.mutable_tensor_group());
  WriteOps(stats.stages, *message.mutable_stages());
  message.set_weight_bytes(stats.weight_bytes);
  message.set_kv_cache_bytes(stats.kv_cache_bytes);
  message.set_first_expert(stats.first_expert);
  message.mutable_expert_tokens()->Add(stats.expert_tokens.begin(), stats.expert_tokens.end());
}

RankStats ReadStats(const v1::RankStats& message) {
  return {.stage = message.stage(),
          .tp_rank = message.tp_rank(),
          .busy = absl::Nanoseconds(message.busy_ns()),
          .waiting_in_stage = absl::Nanoseconds(message.waiting_in_stage_ns()),
          .waiting_for_stages = absl::Nanoseconds(message.waiting_for_stages_ns()),
          .idle = absl::Nanoseconds(message.idle_ns()),
          .num_steps = message.num_steps(),
          .tensor_group = ReadOps(message.tensor_group()),
          .stages = ReadOps(message.stages()),
          .weight_bytes = message.weight_bytes(),
          .kv_cache_bytes = message.kv_cache_bytes(),
          .first_expert = std::clamp(message.first_expert(), 0, kMaxExperts),
          .expert_tokens = {message.expert_tokens().begin(),
                            message.expert_tokens().begin() + std::min(message.expert_tokens_size(), kMaxExperts)}};
}

void WriteActivity(const RankActivity& activity, v1::RankActivity& message) {
  message.set_rank(activity.rank);
  message.set_step(activity.step);
  message.set_in_step(activity.in_step);
  if (!activity.wait.has_value()) return;
  const CommWait& wait = *activity.wait;
  v1::RankWait& to = *message.mutable_wait();
  to.set_group(activity.group);
  to.set_op(static_cast<int32_t>(wait.op));
  to.set_number(wait.number);
  to.set_bytes(wait.bytes);
  to.set_seconds(absl::ToDoubleSeconds(wait.elapsed));
  to.mutable_missing()->Add(wait.missing.begin(), wait.missing.end());
}

RankActivity ReadActivity(const v1::RankActivity& message) {
  RankActivity activity{.rank = message.rank(), .step = message.step(), .in_step = message.in_step()};
  if (!message.has_wait()) return activity;
  const v1::RankWait& wait = message.wait();
  constexpr int kMostToName = 64;
  const int num_missing = std::min(wait.missing_size(), kMostToName);
  activity.group = wait.group().substr(0, kMostToName);
  activity.wait = {.op = static_cast<CommOp>(std::clamp(wait.op(), 0, static_cast<int>(kNumCommOps))),
                   .number = wait.number(),
                   .bytes = wait.bytes(),
                   .elapsed = absl::Seconds(wait.seconds()),
                   .missing = {wait.missing().begin(), wait.missing().begin() + num_missing}};
  return activity;
}

}  // namespace weft
