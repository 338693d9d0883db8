// The server's health, written by whoever starts and stops it, read by probes.
#pragma once

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/health.h"

namespace weft {

// Thread-safe.
class HealthBoard {
 public:
  HealthState Get() const {
    absl::MutexLock lock(&mutex_);
    return state_;
  }

  // Death is final: nothing overwrites it.
  void Set(HealthState state) {
    absl::MutexLock lock(&mutex_);
    if (state_.health != Health::kDead) state_ = std::move(state);
  }

 private:
  mutable absl::Mutex mutex_;
  HealthState state_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
