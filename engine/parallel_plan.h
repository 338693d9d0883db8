// How one model is spread over ranks: pure data, and the arithmetic that says whether it can be.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model_config.h"
#include "engine/parallel_sizes.h"

namespace weft {

struct Range {
  int64_t begin = 0;
  int64_t count = 0;

  int64_t end() const { return begin + count; }
};

// One rank's place in a replica. Ranks of a stage share each of its layers; rank = stage * tp_size + tp_rank.
struct ParallelPlan {
  int tp_rank = 0;
  int tp_size = 1;
  int stage = 0;
  int num_stages = 1;
  int ep_size = 1;  // parts into which the experts are spread, see ParallelSizes
  Range layers;     // of this stage

  int rank() const { return stage * tp_size + tp_rank; }
  bool IsFirstStage() const { return stage == 0; }
  bool IsLastStage() const { return stage + 1 == num_stages; }
};

// The part of `size` things that is rank's of `num_ranks`: parts are contiguous, and differ by one at most.
constexpr Range ShardOf(int64_t size, int rank, int num_ranks) {
  const int64_t begin = size * rank / num_ranks;
  return {begin, size * (rank + 1) / num_ranks - begin};
}

// The whole model on one rank.
ParallelPlan WholeModel(const ModelConfig& config);

// A plan for each rank, in their order. Layers are spread so that the costliest stage costs as little as can be: a
// layer, or the output head, costs as many products as it has weights that a token meets.
//
// Errors: InvalidArgument "SETTING: ..." with the arithmetic: heads that the tensor size doesn't divide, more stages
// than layers, given layers that don't sum up, an expert size that doesn't divide the tensor size or the experts.
absl::StatusOr<std::vector<ParallelPlan>> MakePlans(const ModelConfig& config, const ParallelSizes& sizes);

}  // namespace weft
