#include "engine/engine_setup.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/kv_cache.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

int64_t BlockBytes(const ModelConfig& config, const EngineSetup& setup, const std::vector<ParallelPlan>& plans) {
  int64_t bytes = 0;
  for (const ParallelPlan& plan : plans) {
    bytes += KvCache::BlockBytes(config, plan, setup.block_size, KvDType(config, setup));
  }
  return bytes;
}

int64_t NumBlocks(const EngineSetup& setup, int64_t num_tokens) {
  return (num_tokens + setup.block_size - 1) / setup.block_size;
}

}  // namespace

DType KvDType(const ModelConfig& config, const EngineSetup& setup) {
  if (setup.device.kind == DeviceKind::kCuda) return setup.device.activations;
  const DType weights = setup.weights.dtype.value_or(config.dtype);
  return weights == DType::kF32 ? DType::kF32 : DType::kBF16;
}

absl::StatusOr<int64_t> KvCacheBytes(const ModelConfig& config, const EngineSetup& setup, int64_t num_tokens) {
  ASSIGN_OR_RETURN(const std::vector<ParallelPlan> plans, MakePlans(config, setup.parallel));
  return NumBlocks(setup, num_tokens) * BlockBytes(config, setup, plans);
}

absl::StatusOr<EngineLimits> LimitsFor(const ModelConfig& config, const EngineSetup& setup,
                                       const std::vector<ParallelPlan>& plans) {
  const int64_t block_bytes = BlockBytes(config, setup, plans);
  const int64_t num_blocks = std::min<int64_t>(setup.kv_cache_bytes / block_bytes, std::numeric_limits<int>::max());
  const int64_t needed = NumBlocks(setup, setup.max_model_len);
  if (num_blocks < needed) {
    return absl::InvalidArgumentError(absl::StrCat(
        "kv-cache-memory: ", setup.kv_cache_bytes, " bytes a replica are ", num_blocks, " blocks of ", block_bytes,
        " bytes, fewer than the ", needed, " that one sequence of max-model-len ", setup.max_model_len, " needs"));
  }
  return EngineLimits{.max_model_len = setup.max_model_len,
                      .num_blocks = static_cast<int>(num_blocks),
                      .block_size = setup.block_size,
                      .max_num_seqs = setup.max_num_seqs,
                      .max_num_batched_tokens = setup.max_num_batched_tokens,
                      .vocab_size = config.vocab_size,
                      .num_stages = plans.back().num_stages};
}

}  // namespace weft
