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
  // What a replica had left after a step.
  struct Backlog {
    bool has_free_slots = false;
    int64_t num_prompt_tokens = 0;  // of sequences that run, still to be computed
  };
  struct Step {
    absl::Duration took;
    int64_t num_prompt_tokens = 0;  // computed
    int64_t num_finished = 0;       // sequences
    Backlog backlog = {};
  };

  void Observe(const Step& step) {
    absl::MutexLock lock(&mutex_);
    const double seconds = absl::ToDoubleSeconds(step.took);
    if (!(seconds > 0)) return;
    backlog_ = step.backlog;
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
  // Of the replica that ended a step last.
  Backlog LastBacklog() const {
    absl::MutexLock lock(&mutex_);
    return backlog_;
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
  Backlog backlog_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
