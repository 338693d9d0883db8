// Builds what one rank computes with.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine_setup.h"
#include "engine/weights.h"
#include "engine/worker.h"
#include "kernels/communicator.h"

namespace weft {

// One rank's ends of the groups that it is in.
struct RankCommunicators {
  std::unique_ptr<Communicator> tensor_group;  // with the ranks of its stage; null: it is the only one
  std::unique_ptr<Communicator> stages;        // with the ranks of the same tp_rank in all stages; null: one stage
};

// Sends that a stage may be ahead of the next one's Recvs: room for every step in flight, or stages that wait for each
// other's room would stand still.
int MaxMessagesAhead(int num_stages);

// Of all ranks of a replica, by rank, within this process. Errors: those of OpenGroup.
absl::StatusOr<std::vector<RankCommunicators>> OpenCommunicators(const ParallelSizes& sizes);

// On a device of its own, opened with setup.device. Error: ResourceExhausted.
absl::StatusOr<WorkerParts> MakeWorkerParts(const ModelConfig& config, const EngineSetup& setup,
                                            const EngineLimits& limits, const ParallelPlan& plan,
                                            std::shared_ptr<const ModelWeights> weights,
                                            RankCommunicators communicators);

}  // namespace weft
