#include "engine/worker.h"

#include <optional>
#include <utility>

#include "absl/time/clock.h"
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

absl::StatusOr<StepResult> Worker::Step(Batch& batch) {
  step_.store(batch.step, std::memory_order_relaxed);
  in_step_.store(true, std::memory_order_release);
  recorder_.BeginStep();
  StepResult result{.step = batch.step};
  const absl::Time begin = absl::Now();
  const Tensor hidden = Input(batch);
  const absl::Time has_input = absl::Now();
  result.tokens = RunStage(batch, hidden);
  RETURN_IF_ERROR(parts_.backend->Synchronize());
  RETURN_IF_ERROR(GroupStatus());
  RETURN_IF_ERROR(RecordExpertLoad());
  const absl::Time end = absl::Now();
  result.compute_time = end - begin;
  if (parts_.trace != nullptr) parts_.trace->Add({parts_.plan.rank(), batch.step, has_input, end});
  recorder_.EndStep();
  in_step_.store(false, std::memory_order_release);
  return result;
}

// Where the stage waits for others: the first for tokens that were drawn, the rest for activations.
Tensor Worker::Input(Batch& batch) {
  PipelineStage& stage = parts_.stage;
  if (stage.IsFirst()) stage.ResolveTokens(batch);
  parts_.input.Load(batch, *parts_.backend);
  const Tensor hidden = parts_.model.Hidden(parts_.input);
  if (!stage.IsFirst()) stage.ReceiveHidden(hidden);
  return hidden;
}

// With Input, all of pipeline parallelism; tensor parallelism is inside the model's linears.
std::vector<SampledToken> Worker::RunStage(const Batch& batch, Tensor hidden) {
  auto& [backend, tensor_group, stages, plan, model, kv_cache, input, stage, sampler, trace] = parts_;
  if (stage.IsFirst()) hidden = model.Embed(input);
  hidden = model.RunLayers(input, hidden, kv_cache);
  if (!stage.IsLast()) {
    stage.SendHidden(hidden);
    return {};
  }
  sampler.BeginStep(batch);
  if (batch.sampling.empty()) return {};
  std::vector<SampledToken> tokens = sampler.Sample(batch, model.Logits(input, hidden));
  stage.PassOn(batch, tokens);
  return tokens;
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
