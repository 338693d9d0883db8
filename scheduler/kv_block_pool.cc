#include "scheduler/kv_block_pool.h"

#include <algorithm>

#include "kernels/check.h"

namespace weft {

KvBlockPool::KvBlockPool(int num_blocks, int block_size, bool tells_changes)
    : block_size_(static_cast<size_t>(block_size)),
      blocks_(static_cast<size_t>(num_blocks)),
      tokens_(static_cast<size_t>(num_blocks) * static_cast<size_t>(block_size)),
      tells_changes_(tells_changes) {
  // Lowest ids on top of the stack: a small load touches little memory.
  free_.reserve(blocks_.size());
  for (int32_t id = num_blocks - 1; id >= 0; --id) free_.push_back(id);
  registered_.reserve(blocks_.size());
}

bool KvBlockPool::Take(int count, std::vector<int32_t>& ids) {
  if (count > num_available()) return false;
  for (int i = 0; i < count; ++i) {
    if (free_.empty()) {
      FreeOldest();
      ++num_evictions_;
    }
    const int32_t id = free_.back();
    free_.pop_back();
    BlockOf(id).num_holders = 1;
    ids.push_back(id);
  }
  return true;
}

// The last first, so that of one sequence's blocks the last is the first to be evicted: without the ones before it, it
// can't be found.
void KvBlockPool::Give(absl::Span<const int32_t> ids) {
  for (size_t i = ids.size(); i-- > 0;) {
    Block& block = BlockOf(ids[i]);
    CHECK(block.num_holders > 0, "a KV block was given back twice");
    if (--block.num_holders > 0) continue;
    if (block.is_registered) {
      PushNewest(ids[i]);
    } else {
      free_.push_back(ids[i]);
    }
  }
}

void KvBlockPool::Register(int32_t id, const PrefixKey& key, absl::Span<const int32_t> tokens) {
  Block& block = BlockOf(id);
  CHECK(block.num_holders > 0 && !block.is_registered, "only a held block is registered, and once");
  CHECK(tokens.size() == block_size_, "only a full block is registered");
  if (!registered_.try_emplace(key, id).second) return;
  block.is_registered = true;
  block.key = key;
  std::copy(tokens.begin(), tokens.end(), TokensOf(id));
  if (tells_changes_) changes_.changes.push_back({key, true});
}

void KvBlockPool::Unregister(absl::Span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (BlockOf(id).is_registered) Drop(BlockOf(id));
  }
}

void KvBlockPool::Drop(Block& block) {
  registered_.erase(block.key);
  block.is_registered = false;
  if (tells_changes_) changes_.changes.push_back({block.key, false});
}

bool KvBlockPool::IsHeld(const PrefixKey& key) const {
  const auto found = registered_.find(key);
  return found != registered_.end() && BlockOf(found->second).num_holders > 0;
}

bool KvBlockPool::TakeUp(const PrefixKey& key, absl::Span<const int32_t> tokens, std::vector<int32_t>& ids) {
  const auto found = registered_.find(key);
  if (found == registered_.end()) return false;
  const int32_t id = found->second;
  if (!std::equal(tokens.begin(), tokens.end(), TokensOf(id))) return false;
  if (BlockOf(id).num_holders++ == 0) Unlink(id);
  ids.push_back(id);
  return true;
}

void KvBlockPool::PushNewest(int32_t id) {
  Block& block = BlockOf(id);
  block.older = newest_;
  block.newer = kNone;
  (newest_ == kNone ? oldest_ : BlockOf(newest_).newer) = id;
  newest_ = id;
  ++num_cached_;
}

void KvBlockPool::Unlink(int32_t id) {
  const Block& block = BlockOf(id);
  (block.older == kNone ? oldest_ : BlockOf(block.older).newer) = block.newer;
  (block.newer == kNone ? newest_ : BlockOf(block.newer).older) = block.older;
  --num_cached_;
}

void KvBlockPool::FreeOldest() {
  const int32_t id = oldest_;
  Unlink(id);
  Drop(BlockOf(id));
  free_.push_back(id);
}

void KvBlockPool::ForgetContent() {
  while (num_cached_ > 0) FreeOldest();
  CHECK(registered_.empty(), "what is registered is cached, where nobody holds a block");
}

int KvBlockPool::NumHolders() const {
  int num_holders = 0;
  for (const Block& block : blocks_) num_holders += block.num_holders;
  return num_holders;
}

void KvBlockPool::CheckInvariants() const {
  std::vector<bool> seen(blocks_.size());
  const auto see = [&seen](int32_t id) {
    CHECK(!seen[static_cast<size_t>(id)], "a block is in one state");
    seen[static_cast<size_t>(id)] = true;
  };
  for (const int32_t id : free_) {
    see(id);
    CHECK(BlockOf(id).num_holders == 0 && !BlockOf(id).is_registered, "a free block is nobody's");
  }
  int num_cached = 0;
  for (int32_t id = oldest_, older = kNone; id != kNone; older = id, id = BlockOf(id).newer) {
    see(id);
    ++num_cached;
    CHECK(BlockOf(id).older == older, "the cached are linked both ways");
    CHECK(BlockOf(id).num_holders == 0 && BlockOf(id).is_registered, "a cached block is registered and nobody's");
  }
  CHECK(num_cached == num_cached_, "the cached are counted");
  size_t num_registered = 0;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    CHECK(seen[i] || blocks_[i].num_holders > 0, "no block is lost");
    CHECK(!seen[i] || blocks_[i].num_holders == 0, "a block that is held is neither free nor cached");
    if (!blocks_[i].is_registered) continue;
    ++num_registered;
    const auto found = registered_.find(blocks_[i].key);
    CHECK(found != registered_.end() && found->second == static_cast<int32_t>(i), "a registered block is found");
  }
  CHECK(num_registered == registered_.size(), "what is found is registered");
}

}  // namespace weft
