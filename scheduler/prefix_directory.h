// Which replica holds which prefix, so that a request can wait a moment for the one that has its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "scheduler/prefix_key.h"

namespace weft {

// What a replica registered and evicted since it last told.
struct CacheChanges {
  struct Change {
    PrefixKey key;
    bool present = false;
  };
  std::vector<Change> changes;  // in order
};

// A hint: replicas tell after each step, so it may be a step behind. Thread-safe.
class PrefixDirectory {
 public:
  static constexpr int kMaxReplicas = 64;

  void Apply(int replica, const CacheChanges& changes) {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, present] : changes.changes) {
      if (present) {
        holders_[key] |= Bit(replica);
      } else {
        Drop(replica, key);
      }
    }
  }

  // The most of the first `keys` that any replica but this one holds; replicas evict the end of a prefix first.
  int LongestElsewhere(int replica, absl::Span<const PrefixKey> keys) const {
    absl::MutexLock lock(&mutex_);
    const auto missing = std::partition_point(keys.begin(), keys.end(), [&](const PrefixKey& key) {
      const auto found = holders_.find(key);
      return found != holders_.end() && (found->second & ~Bit(replica)) != 0;
    });
    return static_cast<int>(missing - keys.begin());
  }

  size_t size() const {
    absl::MutexLock lock(&mutex_);
    return holders_.size();
  }

 private:
  static uint64_t Bit(int replica) { return uint64_t{1} << replica; }

  void Drop(int replica, const PrefixKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto found = holders_.find(key);
    if (found == holders_.end()) return;
    found->second &= ~Bit(replica);
    if (found->second == 0) holders_.erase(found);
  }

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<PrefixKey, uint64_t> holders_ ABSL_GUARDED_BY(mutex_);  // a bit a replica
};

}  // namespace weft
