#include "engine/memory_need.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/expert_parallel.h"
#include "engine/parallel_plan.h"
#include "engine/rank_parts.h"
#include "engine/tensor_parallel.h"
#include "engine/weight_bytes.h"
#include "kernels/device.h"

namespace weft {
namespace {

std::string GiB(int64_t bytes) { return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / (1 << 30)); }

int64_t MessageBytes(const ModelConfig& config, const EngineSetup& setup) {
  const ParallelSizes& sizes = setup.parallel;
  if (setup.device.kind == DeviceKind::kCuda) return 0;                                    // not of the device's memory
  const int64_t largest = int64_t{setup.max_num_batched_tokens} * config.hidden_size * 4;  // a step's activations
  const auto bytes = [&](int num_ranks, int ahead) {
    return num_ranks > 1 ? GroupBytes(num_ranks, ahead, largest) : 0;
  };
  return sizes.pipeline * bytes(sizes.tensor, 1) +
         sizes.tensor * bytes(sizes.pipeline, MaxMessagesAhead(sizes.pipeline));
}

// As Model::Create and MoeMlp::Create allocate them.
int64_t StepBytes(const ModelConfig& config, const EngineSetup& setup, const ParallelPlan& plan) {
  const bool is_cpu = setup.device.kind == DeviceKind::kCpu;
  const auto activation = static_cast<int64_t>(DTypeBytes(is_cpu ? DType::kF32 : setup.device.activations));
  const int64_t tokens = setup.max_num_batched_tokens, hidden = config.hidden_size;
  const HeadShard heads = HeadsOf(config, plan);
  const int64_t kv_heads = static_cast<int64_t>(heads.kv_heads.size());
  const int64_t head_elements = (2 * heads.heads.count + 2 * kv_heads) * config.head_dim;  // qkv, and what comes of it
  const MoeConfig& moe = config.moe;
  const int64_t inner =
      moe.IsSparseThroughout() ? 0 : ShardOf(config.intermediate_size, plan.tp_rank, plan.tp_size).count;
  int64_t bytes = tokens * (4 * hidden + activation * (2 * hidden + head_elements + 3 * inner));
  if (moe.num_experts > 0) {
    const ExpertShard shard = ExpertsOf(config, plan);
    const int64_t pairs = tokens * moe.num_experts_per_token;
    const int64_t of_experts = std::max(pairs * shard.inner.count, tokens * shard.shared_inner.count);
    bytes += activation * (3 * of_experts + pairs * hidden) + 4 * tokens * moe.num_experts;
  }
  if (plan.IsLastStage()) {
    const int64_t vocab = ShardOf(config.vocab_size, plan.tp_rank, plan.tp_size).count;
    bytes += (setup.max_num_seqs + EngineLimits().max_num_scores) * (4 * vocab + activation * hidden);
  }
  return bytes;
}

}  // namespace

MemoryNeed MemoryNeedOf(const ModelConfig& config, const EngineSetup& setup, const std::vector<ParallelPlan>& ranks) {
  const auto num_here = static_cast<int64_t>(ranks.size());
  const int64_t num_ranks = setup.parallel.num_ranks();
  MemoryNeed need;
  for (const ParallelPlan& plan : ranks) {
    need.weights += WeightBytes(config, plan, setup.weights);
    need.step += StepBytes(config, setup, plan);
  }
  need.kv_cache = setup.kv_cache_bytes * num_here / num_ranks;
  need.messages = MessageBytes(config, setup) * num_here / num_ranks;
  return need;
}

absl::Status CheckMemory(const MemoryNeed& need, int64_t usable_bytes) {
  if (need.total() <= usable_bytes) return absl::OkStatus();
  std::string terms = absl::StrCat(GiB(need.weights), " of weights + ", GiB(need.kv_cache), " of KV cache + ",
                                   GiB(need.step), " of activations");
  std::string settings = "weight-dtype, kv-cache-memory, max-num-seqs, max-model-len, max-num-batched-tokens";
  if (need.messages > 0) {
    absl::StrAppend(&terms, " + ", GiB(need.messages), " for messages between ranks");
    absl::StrAppend(&settings, ", pipeline-parallel-size, tensor-parallel-size");
  }
  return absl::InvalidArgumentError(absl::StrCat("memory: ", terms, " = ", GiB(need.total()), ", more than the ",
                                                 GiB(usable_bytes),
                                                 " that this process may use; settings that change it: ", settings));
}

}  // namespace weft
