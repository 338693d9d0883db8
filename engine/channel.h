// A queue between two threads.
#pragma once

#include <deque>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace weft {

// Unbounded by itself: its users bound what they push (an Engine by HasRoom). Thread-safe.
template <typename T>
class Channel {
 public:
  void Push(T value) {
    absl::MutexLock lock(&mutex_);
    values_.push_back(std::move(value));
  }

  // Waits for a value; none once the channel is closed and empty.
  std::optional<T> Pop() { return PopBefore(absl::InfiniteFuture()); }
  // ... or until the deadline has passed.
  std::optional<T> PopBefore(absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithDeadline(absl::Condition(this, &Channel::HasValueOrClosed), deadline);
    if (values_.empty()) return std::nullopt;
    T value = std::move(values_.front());
    values_.pop_front();
    return value;
  }

  void Close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }

 private:
  bool HasValueOrClosed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !values_.empty() || closed_; }

  absl::Mutex mutex_;
  std::deque<T> values_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace weft
