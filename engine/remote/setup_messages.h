// What a worker is told to load and to be, on the wire.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/engine_setup.h"
#include "engine/parallel_plan.h"
#include "engine/weight_digest.h"
#include "weft/v1/worker.pb.h"

namespace weft {

void WriteSetup(const EngineSetup& setup, v1::Assignment& message);
// Error: InvalidArgument for numbers that no server sends.
absl::StatusOr<EngineSetup> ReadSetup(const v1::Assignment& message);

// SHA-256, in hex, of a model directory's config.json. Error: NotFound.
absl::StatusOr<std::string> ConfigDigest(const std::string& model_dir);

// What a rank's weights are.
void WriteDigests(absl::Span<const TensorDigest> digests, v1::RankLoaded& message);
std::vector<TensorDigest> ReadDigests(const v1::RankLoaded& message);

// The plan of a rank as the server has it.
void WritePlan(const ParallelPlan& plan, v1::RankPlace& message);
// Error: FailedPrecondition that names both when this end has planned otherwise.
absl::Status CheckPlan(const v1::RankPlace& message, const std::vector<ParallelPlan>& plans);

}  // namespace weft
