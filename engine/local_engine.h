// An Engine whose workers are threads of this process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/model_config.h"
#include "engine/model_dir.h"
#include "engine/parallel_sizes.h"
#include "engine/weight_options.h"
#include "kernels/device.h"

namespace weft {

struct LocalEngineOptions {
  ModelDir model_dir;
  WeightOptions weights;
  DeviceOptions device;
  ParallelSizes parallel;
  int64_t max_model_len = 0;         // positions a sequence may have; > 0
  int max_num_seqs = 64;             // slots, and rows a step
  int max_num_batched_tokens = 512;  // >= max_num_seqs
  int block_size = 16;
  int64_t kv_cache_bytes = 0;  // of all ranks together; holds at least one sequence of max_model_len
};

// Bytes of a KV cache for `num_tokens` tokens on all ranks, in whole blocks, with the KV dtype that `options` lead to.
// Errors: those of MakePlans.
absl::StatusOr<int64_t> KvCacheBytes(const ModelConfig& config, const LocalEngineOptions& options, int64_t num_tokens);

// Loads the model once and starts `count` engines of it, >= 1: data-parallel replicas. They share its weights; the
// device's threads are divided among all their ranks, one each at least; each has a KV cache of its own, of
// kv_cache_bytes. Errors: InvalidArgument for a bad model directory or options that contradict each other,
// ResourceExhausted when memory doesn't suffice.
absl::StatusOr<std::vector<std::unique_ptr<Engine>>> OpenLocalEngines(const ModelConfig& config,
                                                                      const LocalEngineOptions& options, int count);

}  // namespace weft
