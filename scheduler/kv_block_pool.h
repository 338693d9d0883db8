// The KV blocks of one replica, as numbers: who holds which.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace weft {

// A free list of block ids. Owned by a Scheduler, used by its thread only.
class KvBlockPool {
 public:
  explicit KvBlockPool(int num_blocks);

  int num_blocks() const { return static_cast<int>(is_free_.size()); }
  int num_free() const { return static_cast<int>(free_.size()); }

  // Appends `count` blocks to `ids`, or does nothing and returns false when fewer are free.
  bool Take(int count, std::vector<int32_t>& ids);
  void Give(absl::Span<const int32_t> ids);

 private:
  std::vector<int32_t> free_;
  std::vector<bool> is_free_;  // catches a block that is given back twice
};

// The blocks of one sequence, in the order of its positions. Gives them back on destruction.
class BlockTable {
 public:
  explicit BlockTable(KvBlockPool& pool) : pool_(&pool) {}
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;
  ~BlockTable() { Clear(); }

  // Grows to `num_blocks`; false, and nothing changes, when the pool can't.
  bool GrowTo(int num_blocks);
  void Clear();

  const std::vector<int32_t>& ids() const { return ids_; }
  int size() const { return static_cast<int>(ids_.size()); }

 private:
  KvBlockPool* pool_;
  std::vector<int32_t> ids_;
};

}  // namespace weft
