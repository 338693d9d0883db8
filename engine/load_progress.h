// How loading goes, for whoever wants to know.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace weft {

struct LoadObserver {
  // Bytes of files checked and of tensors read so far, and all that there will be. Called from several threads, one
  // call at a time: `done` never falls, `total` stays, and a load that succeeds ends with done == total. Loading waits
  // for it, so it is quick. May be null.
  std::function<void(int64_t done, int64_t total)> on_bytes;
  // At the end, by the thread that loads: what parts of its time went where (kLoadPhases), adding up to most of it. May
  // be null.
  std::function<void(absl::string_view phase, absl::Duration took)> on_phase;
};

// "verify": files against the manifest. "read": waiting for tensors; what is read while others are converted costs
// nothing here. "convert": into the backend's form, quantised. "digest": of what came out.
inline constexpr absl::string_view kLoadPhases[] = {"verify", "read", "convert", "digest"};

// Counts for a LoadObserver, whose on_bytes it calls. Thread-safe.
class LoadMeter {
 public:
  explicit LoadMeter(std::function<void(int64_t done, int64_t total)> on_bytes) : on_bytes_(std::move(on_bytes)) {}

  // All of it before the first Add.
  void Expect(int64_t bytes) {
    absl::MutexLock lock(&mutex_);
    total_ += bytes;
  }
  void Add(int64_t bytes) {
    absl::MutexLock lock(&mutex_);
    done_ += bytes;
    if (on_bytes_ != nullptr) on_bytes_(done_, total_);
  }

 private:
  const std::function<void(int64_t done, int64_t total)> on_bytes_;
  absl::Mutex mutex_;
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t total_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace weft
