#include "engine/kv_cache.h"

#include <utility>

#include "engine/tensor_parallel.h"
#include "kernels/status_macros.h"

namespace weft {

int64_t KvCache::BlockBytes(const ModelConfig& config, const ParallelPlan& plan, int block_size, DType dtype) {
  const auto num_kv_heads = static_cast<int64_t>(HeadsOf(config, plan).kv_heads.size());
  const int64_t elements = 2 * plan.layers.count * num_kv_heads * block_size * config.head_dim;
  return elements * static_cast<int64_t>(DTypeBytes(dtype));
}

absl::StatusOr<KvCache> KvCache::Allocate(const ModelConfig& config, const ParallelPlan& plan, const Options& options,
                                          Backend& backend) {
  const auto num_kv_heads = static_cast<int>(HeadsOf(config, plan).kv_heads.size());
  KvCache cache({nullptr, nullptr, options.dtype, num_kv_heads, options.block_size, config.head_dim});
  const int64_t block_bytes = BlockBytes(config, plan, options.block_size, options.dtype);
  const auto bytes = static_cast<size_t>((options.num_blocks + 1) * block_bytes / (2 * plan.layers.count));
  for (int64_t layer = 0; layer < plan.layers.count; ++layer) {
    ASSIGN_OR_RETURN(Buffer keys, backend.Allocate(bytes));
    ASSIGN_OR_RETURN(Buffer values, backend.Allocate(bytes));
    cache.keys_.push_back(std::move(keys));
    cache.values_.push_back(std::move(values));
  }
  return cache;
}

int64_t KvCache::bytes() const {
  size_t bytes = 0;
  for (const Buffer& buffer : keys_) bytes += buffer.bytes();
  for (const Buffer& buffer : values_) bytes += buffer.bytes();
  return static_cast<int64_t>(bytes);
}

KvView KvCache::Layer(int layer) const {
  KvView view = view_;
  view.keys = keys_[static_cast<size_t>(layer)].data();
  view.values = values_[static_cast<size_t>(layer)].data();
  return view;
}

}  // namespace weft
