#include "engine/memory_need.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/parallel_plan.h"
#include "engine/rank_parts.h"
#include "engine/weight_bytes.h"
#include "kernels/device.h"

namespace weft {
namespace {

std::string GiB(int64_t bytes) { return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / (1 << 30)); }

int64_t MessageBytes(const ModelConfig& config, const EngineSetup& setup) {
  const ParallelSizes& sizes = setup.parallel;
  const int64_t largest = int64_t{setup.max_num_batched_tokens} * config.hidden_size * 4;  // a step's activations
  const auto bytes = [&](int num_ranks, int ahead) {
    return num_ranks > 1 ? GroupBytes(setup.device.kind, num_ranks, ahead, largest) : 0;
  };
  return sizes.pipeline * bytes(sizes.tensor, 1) +
         sizes.tensor * bytes(sizes.pipeline, MaxMessagesAhead(sizes.pipeline));
}

}  // namespace

MemoryNeed MemoryNeedOf(const ModelConfig& config, const EngineSetup& setup, const std::vector<ParallelPlan>& ranks) {
  const auto num_here = static_cast<int64_t>(ranks.size());
  const int64_t num_ranks = setup.parallel.num_ranks();
  MemoryNeed need;
  for (const ParallelPlan& plan : ranks) need.weights += WeightBytes(config, plan, setup.weights);
  need.kv_cache = setup.kv_cache_bytes * num_here / num_ranks;
  need.messages = MessageBytes(config, setup) * num_here / num_ranks;
  return need;
}

absl::Status CheckMemory(const MemoryNeed& need, int64_t usable_bytes) {
  if (need.total() <= usable_bytes) return absl::OkStatus();
  std::string terms = absl::StrCat(GiB(need.weights), " of weights + ", GiB(need.kv_cache), " of KV cache");
  std::string settings = "weight-dtype, kv-cache-memory, max-num-seqs, max-model-len";
  if (need.messages > 0) {
    absl::StrAppend(&terms, " + ", GiB(need.messages), " for messages between ranks");
    absl::StrAppend(&settings, ", pipeline-parallel-size, tensor-parallel-size");
  }
  return absl::InvalidArgumentError(absl::StrCat("memory: ", terms, " = ", GiB(need.total()), ", more than the ",
                                                 GiB(usable_bytes),
                                                 " that this process may use; settings that change it: ", settings));
}

}  // namespace weft
