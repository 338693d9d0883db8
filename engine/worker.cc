#include "engine/worker.h"

#include <utility>

#include "absl/time/clock.h"
#include "kernels/status_macros.h"

namespace weft {

absl::StatusOr<StepResult> Worker::Step(Batch& batch) {
  const absl::Time begin = absl::Now();
  StepResult result{.step = batch.step};
  result.tokens = RunStage(batch);
  RETURN_IF_ERROR(parts_.backend->Synchronize());
  RETURN_IF_ERROR(GroupStatus());
  result.compute_time = absl::Now() - begin;
  return result;
}

// All of pipeline parallelism; tensor parallelism is inside the model's linears.
std::vector<SampledToken> Worker::RunStage(Batch& batch) {
  auto& [backend, tensor_group, stages, plan, model, kv_cache, input, stage, sampler] = parts_;
  if (stage.IsFirst()) stage.ResolveTokens(batch);
  input.Load(batch, *backend);
  Tensor hidden = model.Hidden(input);
  if (stage.IsFirst()) {
    hidden = model.Embed(input);
  } else {
    stage.ReceiveHidden(hidden);
  }
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

void Worker::Abort(const absl::Status& status) {
  if (parts_.tensor_group != nullptr) parts_.tensor_group->Abort(status);
  if (parts_.stages != nullptr) parts_.stages->Abort(status);
}

}  // namespace weft
