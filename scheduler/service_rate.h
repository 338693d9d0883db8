// How fast the replicas are just now, for guesses at how long a request will wait.
#pragma once

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace weft {

// Sums over the last seconds of work, older steps counting less and less. Idle time doesn't count. Thread-safe.
class ServiceRate {
 public:
  struct Step {
    absl::Duration took;
    int64_t num_prompt_tokens = 0;  // computed
    int64_t num_finished = 0;       // sequences
  };

  void Observe(const Step& step) {
    absl::MutexLock lock(&mutex_);
    const double seconds = absl::ToDoubleSeconds(step.took);
    if (!(seconds > 0)) return;
    finishing_.Add(seconds, static_cast<double>(step.num_finished));
    if (step.num_prompt_tokens > 0) prefilling_.Add(seconds, static_cast<double>(step.num_prompt_tokens));
  }

  // Of one replica at work. 0: not known yet.
  double PromptTokensPerSecond() const {
    absl::MutexLock lock(&mutex_);
    return prefilling_.PerSecond();
  }
  double FinishedPerSecond() const {
    absl::MutexLock lock(&mutex_);
    return finishing_.PerSecond();
  }

 private:
  struct Fading {
    static constexpr double kMemorySeconds = 5;

    void Add(double step_seconds, double step_count) {
      const double kept = 1.0 / (1.0 + step_seconds / kMemorySeconds);
      seconds = (seconds + step_seconds) * kept;
      count = (count + step_count) * kept;
    }
    double PerSecond() const { return seconds > 0 ? count / seconds : 0; }

    double seconds = 0;
    double count = 0;
  };

  mutable absl::Mutex mutex_;
  Fading prefilling_ ABSL_GUARDED_BY(mutex_);  // steps with prompt tokens in them
  Fading finishing_ ABSL_GUARDED_BY(mutex_);   // all steps
};

}  // namespace weft
