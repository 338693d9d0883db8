#include "engine/worker.h"

#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "engine/replay_size.h"
#include "engine/stored_bytes.h"
#include "kernels/status_macros.h"

namespace weft {

Worker::Worker(WorkerParts parts)
    : parts_(std::move(parts)),
      recorder_({.stage = parts_.plan.stage,
                 .tp_rank = parts_.plan.tp_rank,
                 .weight_bytes = StoredBytes(parts_.model.weights()),
                 .kv_cache_bytes = parts_.kv_cache.bytes()},
                parts_.tensor_group.get(), parts_.stages.get()) {}

bool Worker::Begin(Batch& batch, std::function<void()> done) {
  step_.store(batch.step, std::memory_order_relaxed);
  if (begun_.empty()) {
    in_step_.store(true, std::memory_order_release);
    recorder_.BeginStep();
  }
  Begun& begun = begun_.emplace_back();
  begun.step = batch.step;
  begun.begin = absl::Now();
  Input(batch);
  begun.has_input = absl::Now();
  begun.draws = RunStage(batch);
  if (IsAlone()) return parts_.backend->MarkHere(std::move(done));
  parts_.backend->MarkHere([] {});
  return true;
}

// A step's memory on the host is free again at the next but one.
bool Worker::MustFinish() const {
  constexpr size_t kMostBegun = 2;
  if (begun_.empty()) return false;
  const Begun& newest = begun_.back();
  return begun_.size() >= kMostBegun || (newest.draws != nullptr && newest.draws->NeedToBeTaken());
}

absl::StatusOr<StepResult> Worker::Finish() {
  const Begun begun = std::move(begun_.front());
  begun_.pop_front();
  RETURN_IF_ERROR(parts_.backend->AwaitMark());
  RETURN_IF_ERROR(GroupStatus());
  StepResult result{.step = begun.step, .tokens = {}, .compute_time = {}};
  if (begun.draws != nullptr) result.tokens = parts_.sampler.Take(*begun.draws);
  if (!parts_.stage.IsOnly() && parts_.stage.IsLast()) parts_.stage.PassOn(result.tokens);
  RETURN_IF_ERROR(RecordExpertLoad());
  const absl::Time end = absl::Now();
  result.compute_time = end - std::max(begun.begin, finished_);
  if (parts_.trace != nullptr) {
    parts_.trace->Add({parts_.plan.rank(), begun.step, std::max(begun.has_input, finished_), end});
  }
  finished_ = end;
  recorder_.EndStep();
  if (begun_.empty()) {
    in_step_.store(false, std::memory_order_release);
  } else {
    recorder_.BeginStep();
  }
  return result;
}

// Where the stage waits for others: the first for tokens that were drawn, the rest for activations.
void Worker::Input(Batch& batch) {
  PipelineStage& stage = parts_.stage;
  if (stage.IsFirst() && !stage.IsLast()) stage.ResolveTokens(batch);
  LoadInput(batch);
  if (!stage.IsFirst()) stage.ReceiveHidden(parts_.model.Hidden(parts_.input));
}

void Worker::LoadInput(const Batch& batch) {
  const int num_tokens = batch.num_tokens();
  const bool is_decode =
      num_tokens == batch.num_rows() && static_cast<size_t>(num_tokens) == batch.sampling.size() && num_tokens > 0;
  if (!CanReplay() || !is_decode) return parts_.input.Load(batch, *parts_.backend);
  parts_.input.LoadForReplay(batch, ReplaySize(num_tokens, parts_.max_num_seqs), *parts_.backend);
}

// The largest step, and all that are recorded: whatever grows with a step grows now.
absl::Status Worker::WarmUp() {
  if (!parts_.backend->CanReplay()) return absl::OkStatus();
  parts_.input.Load(parts_.largest_step, *parts_.backend);
  const Tensor out = parts_.model.Forward(parts_.input, parts_.kv_cache);
  if (parts_.stage.IsLast()) parts_.sampler.WarmUp(out, parts_.max_model_len);
  if (!CanReplay()) return parts_.backend->Synchronize();
  for (int size = 1; size <= parts_.max_num_seqs; ++size) {
    if (ReplaySize(size, parts_.max_num_seqs) != size) continue;
    RETURN_IF_ERROR(parts_.backend->Synchronize());
    parts_.input.LoadForReplay({}, size, *parts_.backend);
    parts_.model.Forward(parts_.input, parts_.kv_cache);
  }
  return parts_.backend->Synchronize();
}

// Stages wait for each other on the host, which no recording holds.
bool Worker::CanReplay() const {
  const bool can_group = parts_.tensor_group == nullptr || parts_.tensor_group->CanReplay();
  return parts_.backend->CanReplay() && parts_.stages == nullptr && can_group;
}

// Ranks that draw together, or that pass on what is drawn, do so on the host, which is then never ahead of the device:
// a step is as good as done once it is begun.
bool Worker::IsAlone() const { return parts_.tensor_group == nullptr && parts_.stages == nullptr; }

// With Input, all of pipeline parallelism; tensor parallelism is inside the model's linears.
std::unique_ptr<Sampler::Draws> Worker::RunStage(const Batch& batch) {
  const Tensor out = parts_.model.Forward(parts_.input, parts_.kv_cache);
  if (!parts_.stage.IsLast()) {
    parts_.stage.SendHidden(out);
    return nullptr;
  }
  parts_.sampler.BeginStep(batch);
  if (batch.sampling.empty()) return nullptr;
  const Tensor logits = out.Rows(0, static_cast<int64_t>(batch.sampling.size()));
  return parts_.sampler.Draw(batch, logits, parts_.input.last_drawn());
}

absl::Status Worker::GroupStatus() const {
  if (parts_.tensor_group != nullptr) RETURN_IF_ERROR(parts_.tensor_group->status());
  if (parts_.stages != nullptr) RETURN_IF_ERROR(parts_.stages->status());
  return absl::OkStatus();
}

absl::Status Worker::RecordExpertLoad() {
  if (parts_.model.moe() == nullptr || !recorder_.WantsExpertLoad()) return absl::OkStatus();
  parts_.model.moe()->CopyLoad(expert_load_);
  RETURN_IF_ERROR(parts_.backend->Synchronize());
  recorder_.SetExpertLoad(expert_load_);
  return absl::OkStatus();
}

RankActivity Worker::activity() const {
  RankActivity activity{.rank = parts_.plan.rank(), .step = -1, .in_step = in_step_.load(std::memory_order_acquire)};
  activity.step = step_.load(std::memory_order_relaxed);
  for (const auto& [name, group] :
       {std::pair("tensor group", parts_.tensor_group.get()), std::pair("stages", parts_.stages.get())}) {
    if (group == nullptr || activity.wait.has_value()) continue;
    activity.wait = group->waiting();
    activity.group = name;
  }
  return activity;
}

void Worker::Abort(const absl::Status& status) {
  if (parts_.tensor_group != nullptr) parts_.tensor_group->Abort(status);
  if (parts_.stages != nullptr) parts_.stages->Abort(status);
}

}  // namespace weft
