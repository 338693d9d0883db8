#include "engine/rank_recorder.h"

#include <cstddef>
#include <utility>

namespace weft {

RankRecorder::RankRecorder(const RankStats& fixed, const Communicator* tensor_group, const Communicator* stages,
                           SteadyNow now)
    : fixed_(fixed), tensor_group_(tensor_group), stages_(stages), now_(now), idle_(now), in_step_(now) {
  idle_.Start();
}

void RankRecorder::BeginStep() {
  idle_.Stop();
  in_step_.Start();
}

// Communicators count a wait when it is over, and none outlasts a step.
void RankRecorder::EndStep() {
  in_step_.Stop();
  idle_.Start();
  const absl::Duration in_stage = tensor_group_ == nullptr ? absl::ZeroDuration() : tensor_group_->stats().waiting();
  const absl::Duration for_stages = stages_ == nullptr ? absl::ZeroDuration() : stages_->stats().waiting();
  Set(waiting_in_stage_, in_stage);
  Set(waiting_for_stages_, for_stages);
  Set(busy_, in_step_.Total() - in_stage - for_stages);
  num_steps_.fetch_add(1);
}

void RankRecorder::SetExpertLoad(const ExpertLoad& load) {
  std::vector<int64_t> tokens(static_cast<size_t>(load.here.count), 0);
  for (size_t i = 0; i < load.num_tokens.size(); ++i) tokens[i % tokens.size()] += load.num_tokens[i];
  if (!mutex_.TryLock()) return;  // somebody reads: the next step tries again
  first_expert_ = load.here.first;
  expert_tokens_ = std::move(tokens);
  mutex_.Unlock();
  load_time_ = now_();
}

RankStats RankRecorder::stats() const {
  RankStats stats = fixed_;
  stats.busy = absl::Nanoseconds(busy_.load());
  stats.waiting_in_stage = absl::Nanoseconds(waiting_in_stage_.load());
  stats.waiting_for_stages = absl::Nanoseconds(waiting_for_stages_.load());
  stats.idle = idle_.Total();
  stats.num_steps = num_steps_.load();
  if (tensor_group_ != nullptr) stats.tensor_group = tensor_group_->stats();
  if (stages_ != nullptr) stats.stages = stages_->stats();
  absl::MutexLock lock(&mutex_);
  stats.first_expert = first_expert_;
  stats.expert_tokens = expert_tokens_;
  return stats;
}

}  // namespace weft
