#include "scheduler/kv_block_pool.h"

#include "kernels/check.h"

namespace weft {

KvBlockPool::KvBlockPool(int num_blocks) : is_free_(static_cast<size_t>(num_blocks), true) {
  // Lowest ids on top of the stack: a small load touches little memory.
  for (int32_t id = num_blocks - 1; id >= 0; --id) free_.push_back(id);
}

bool KvBlockPool::Take(int count, std::vector<int32_t>& ids) {
  if (count > num_free()) return false;
  for (int i = 0; i < count; ++i) {
    ids.push_back(free_.back());
    is_free_[static_cast<size_t>(free_.back())] = false;
    free_.pop_back();
  }
  return true;
}

void KvBlockPool::Give(absl::Span<const int32_t> ids) {
  for (int32_t id : ids) {
    CHECK(!is_free_[static_cast<size_t>(id)], "a KV block was given back twice");
    is_free_[static_cast<size_t>(id)] = true;
    free_.push_back(id);
  }
}

bool BlockTable::GrowTo(int num_blocks) {
  if (num_blocks <= size()) return true;
  return pool_->Take(num_blocks - size(), ids_);
}

void BlockTable::Clear() {
  pool_->Give(ids_);
  ids_.clear();
}

}  // namespace weft
