// What replicas take of one machine's memory, before anything is read or allocated for them.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine_setup.h"
#include "engine/model_config.h"

namespace weft {

// Bytes, of all replicas and ranks on the machine. A step's activations and the program itself come on top.
struct MemoryNeed {
  int64_t weights = 0;
  int64_t kv_cache = 0;
  int64_t messages = 0;  // what ranks send each other: the most that it can come to

  int64_t total() const { return weights + kv_cache + messages; }
};

// `num_replicas` whose ranks are all on this machine, and hold `weight_copies` of the model together: 1 where replicas
// share them. Errors: those of MakePlans.
absl::StatusOr<MemoryNeed> MemoryNeedOf(const ModelConfig& config, const EngineSetup& setup, int num_replicas,
                                        int weight_copies);

// InvalidArgument "memory: ..." with the arithmetic and the settings that change it, when the machine has less.
absl::Status CheckMemory(const MemoryNeed& need, int64_t usable_bytes);

}  // namespace weft
