#include "engine/worker.h"

#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/status_macros.h"

namespace weft {

void Worker::Run() {
  while (std::optional<Batch> batch = inbox_.Pop()) results_.Push(Step(*batch));
}

absl::StatusOr<StepResult> Worker::Step(Batch& batch) {
  const absl::Time begin = absl::Now();
  auto& [backend, model, kv_cache, input, sampler] = parts_;
  sampler.BeginStep(batch);
  input.Load(batch, backend);
  Tensor hidden = model.Embed(input);
  hidden = model.RunLayers(input, hidden, kv_cache);
  StepResult result{.step = batch.step};
  if (!batch.sampling.empty()) result.tokens = sampler.Sample(batch, model.Logits(input, hidden));
  RETURN_IF_ERROR(backend.Synchronize());
  result.compute_time = absl::Now() - begin;
  return result;
}

}  // namespace weft
