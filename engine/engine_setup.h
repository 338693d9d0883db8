// What a replica's engine is made from: the same on every rank, so that each can work out its own part of it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/model_config.h"
#include "engine/model_dir.h"
#include "engine/parallel_plan.h"
#include "engine/parallel_sizes.h"
#include "engine/weight_options.h"
#include "kernels/device.h"

namespace weft {

struct EngineSetup {
  ModelDir model_dir;
  WeightOptions weights;
  DeviceOptions device;
  ParallelSizes parallel;
  int64_t max_model_len = 0;         // positions a sequence may have; > 0
  int max_num_seqs = 64;             // slots, and rows a step
  int max_num_batched_tokens = 512;  // >= max_num_seqs
  int block_size = 16;
  absl::Duration step_timeout = absl::InfiniteDuration();  // of ranks that are threads: then a step is hung
  int64_t kv_cache_bytes = 0;  // of all ranks together; holds at least one sequence of max_model_len
};

// Keys and values are kept as exactly as the weights are; on a CUDA device, as activations are.
DType KvDType(const ModelConfig& config, const EngineSetup& setup);

// Bytes of a KV cache for `num_tokens` tokens on all ranks, in whole blocks. Errors: those of MakePlans.
absl::StatusOr<int64_t> KvCacheBytes(const ModelConfig& config, const EngineSetup& setup, int64_t num_tokens);

// Error: InvalidArgument for a cache that holds less than one sequence of max_model_len.
absl::StatusOr<EngineLimits> LimitsFor(const ModelConfig& config, const EngineSetup& setup,
                                       const std::vector<ParallelPlan>& plans);

}  // namespace weft
