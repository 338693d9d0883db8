#include "engine/kv_cache.h"

#include <utility>

#include "kernels/status_macros.h"

namespace weft {

int64_t KvCache::BlockBytes(const ModelConfig& config, int block_size, DType dtype) {
  const int64_t elements = int64_t{2} * config.num_layers * config.num_kv_heads * block_size * config.head_dim;
  return elements * static_cast<int64_t>(DTypeBytes(dtype));
}

absl::StatusOr<KvCache> KvCache::Allocate(const ModelConfig& config, const Options& options, Backend& backend) {
  KvCache cache(config, options);
  const int64_t block_bytes = BlockBytes(config, options.block_size, options.dtype);
  const size_t bytes = static_cast<size_t>(options.num_blocks * block_bytes / (2 * config.num_layers));
  for (int layer = 0; layer < config.num_layers; ++layer) {
    ASSIGN_OR_RETURN(Buffer keys, backend.Allocate(bytes));
    ASSIGN_OR_RETURN(Buffer values, backend.Allocate(bytes));
    cache.keys_.push_back(std::move(keys));
    cache.values_.push_back(std::move(values));
  }
  return cache;
}

KvView KvCache::Layer(int layer) const {
  KvView view = view_;
  view.keys = keys_[static_cast<size_t>(layer)].data();
  view.values = values_[static_cast<size_t>(layer)].data();
  return view;
}

}  // namespace weft
