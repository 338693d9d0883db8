// What ranks take of one machine's memory, before anything is read or allocated for them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/engine_setup.h"
#include "engine/model_config.h"
#include "engine/parallel_plan.h"

namespace weft {

// Bytes. The program itself, and what a backend works in, come on top.
struct MemoryNeed {
  int64_t weights = 0;
  int64_t kv_cache = 0;
  int64_t step = 0;      // activations and logits of the largest step
  int64_t messages = 0;  // what ranks send each other: the most that it can come to

  int64_t total() const { return weights + kv_cache + step + messages; }
};

// Of some ranks of one replica, which are all on this machine.
MemoryNeed MemoryNeedOf(const ModelConfig& config, const EngineSetup& setup, const std::vector<ParallelPlan>& ranks);

// InvalidArgument "memory: ..." with the arithmetic and the settings that change it, when the machine has less.
absl::Status CheckMemory(const MemoryNeed& need, int64_t usable_bytes);

}  // namespace weft
