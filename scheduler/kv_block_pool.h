// The KV blocks of one replica, as numbers: who holds which, and which may be shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "scheduler/prefix_directory.h"
#include "scheduler/prefix_key.h"

namespace weft {

// A block is in one of three states:
//
//   free      nobody's; its content means nothing
//   held      by one sequence or, once it is registered, by several
//   cached    nobody's, but registered: a sequence with the same prefix may take it up; when blocks run out, the one
//             that was given back longest ago becomes free
//
// Only full and computed blocks are registered, and those are never written again, so holders only read what they
// share. Owned by a Scheduler, used by its thread only. Allocates nothing after construction but in the callers'
// vectors.
class KvBlockPool {
 public:
  // tells_changes: somebody calls TakeChanges after each step.
  KvBlockPool(int num_blocks, int block_size, bool tells_changes = false);

  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  int block_size() const { return static_cast<int>(block_size_); }
  int num_free() const { return static_cast<int>(free_.size()); }
  int num_cached() const { return num_cached_; }
  int num_available() const { return num_free() + num_cached_; }  // what Take can give
  int64_t num_evictions() const { return num_evictions_; }

  // Appends `count` blocks to `ids`, or does nothing and returns false when fewer are available.
  bool Take(int count, std::vector<int32_t>& ids);

  // One holder less for each block. The content of what was registered stays, to be taken up again.
  void Give(absl::Span<const int32_t> ids);

  // From now on the held block can be taken up. tokens: [block_size], those whose keys and values it holds, all
  // computed. Nothing happens if another block has the key.
  void Register(int32_t id, const PrefixKey& key, absl::Span<const int32_t> tokens);

  // The device has lost all content: nothing is registered any more. Nobody holds a block.
  void ForgetContent();

  // The block's content is not to be trusted: nobody takes it up from now on. Its holders keep it.
  void Unregister(absl::Span<const int32_t> ids);

  bool Has(const PrefixKey& key) const { return registered_.contains(key); }
  // Registered, and somebody has it: taking it up makes no block unavailable.
  bool IsHeld(const PrefixKey& key) const;

  // One holder more for the block with this key and these tokens, whose id is appended to `ids`. False: there is none.
  bool TakeUp(const PrefixKey& key, absl::Span<const int32_t> tokens, std::vector<int32_t>& ids);

  // What was registered and unregistered since the last call.
  CacheChanges TakeChanges() { return std::exchange(changes_, {}); }

  // Aborts the process unless every block is in exactly one state. O(blocks).
  void CheckInvariants() const;
  int NumHolders() const;  // of all blocks together; O(blocks)

 private:
  static constexpr int32_t kNone = -1;

  struct Block {
    int32_t num_holders = 0;
    bool is_registered = false;
    int32_t older = kNone;  // neighbours among the cached
    int32_t newer = kNone;
    PrefixKey key;
  };

  Block& BlockOf(int32_t id) { return blocks_[static_cast<size_t>(id)]; }
  const Block& BlockOf(int32_t id) const { return blocks_[static_cast<size_t>(id)]; }
  int32_t* TokensOf(int32_t id) { return tokens_.data() + static_cast<size_t>(id) * block_size_; }  // [block_size]
  void PushNewest(int32_t id);
  void Unlink(int32_t id);
  void FreeOldest();        // of the cached
  void Drop(Block& block);  // from what is registered

  const size_t block_size_;
  std::vector<Block> blocks_;
  std::vector<int32_t> tokens_;  // [num_blocks, block_size] of registered blocks; a key alone is not trusted
  std::vector<int32_t> free_;
  absl::flat_hash_map<PrefixKey, int32_t> registered_;
  int32_t oldest_ = kNone;  // of the cached
  int32_t newest_ = kNone;
  int num_cached_ = 0;
  int64_t num_evictions_ = 0;
  const bool tells_changes_;
  CacheChanges changes_;
};

// The blocks of one sequence, in the order of its positions. Gives them back on destruction.
class BlockTable {
 public:
  explicit BlockTable(KvBlockPool& pool) : pool_(&pool) {}
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;
  ~BlockTable() { Clear(); }

  // Grows to `num_blocks`; false, and nothing changes, when the pool can't.
  bool GrowTo(int num_blocks) { return num_blocks <= size() || pool_->Take(num_blocks - size(), ids_); }

  // Appends the registered block with this key and these tokens; false when there is none.
  bool TakeUp(const PrefixKey& key, absl::Span<const int32_t> tokens) { return pool_->TakeUp(key, tokens, ids_); }

  void Reserve(size_t num_blocks) { ids_.reserve(num_blocks); }  // memory for their ids

  void Clear() {
    pool_->Give(ids_);
    ids_.clear();
  }

  const std::vector<int32_t>& ids() const { return ids_; }
  int size() const { return static_cast<int>(ids_.size()); }

 private:
  KvBlockPool* pool_;
  std::vector<int32_t> ids_;
};

}  // namespace weft
