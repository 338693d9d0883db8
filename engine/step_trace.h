// When ranks were at work: the long way to what EngineStats sums up, for whoever doubts it.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace weft {

// One step of one rank: from when it had its input to its end.
struct StepSpan {
  int rank = 0;
  int64_t step = 0;
  absl::Time begin, end;
};

// Thread-safe. Grows by a span for each rank and step until it is taken.
class StepTrace {
 public:
  void Add(const StepSpan& span) {
    absl::MutexLock lock(&mutex_);
    spans_.push_back(span);
  }

  std::vector<StepSpan> Take() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(spans_, {});
  }

 private:
  absl::Mutex mutex_;
  std::vector<StepSpan> spans_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
