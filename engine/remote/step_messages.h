// Steps and their results on the wire.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/batch.h"
#include "engine/engine.h"
#include "weft/v1/worker.pb.h"

namespace weft {

inline constexpr uint32_t kWorkerProtocol = 1;

void WriteStep(const Batch& batch, v1::Step& message);
// Error: InvalidArgument for one that a worker with these limits can't execute.
absl::StatusOr<Batch> ReadStep(const v1::Step& message, const EngineLimits& limits);

void WriteResult(const StepResult& result, v1::StepDone& message);
// `num_tokens`: as many as were asked for. Errors: Unavailable for a message that no worker writes, Internal for tokens
// that no step can draw.
absl::StatusOr<StepResult> ReadResult(const v1::StepDone& message, size_t num_tokens, const EngineLimits& limits);

}  // namespace weft
