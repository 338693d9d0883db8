// How fast the replicas are just now, for guesses at how long a request will wait.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "scheduler/request.h"

namespace weft {

// Sums over the last seconds of work, older steps counting less and less. Idle time doesn't count. Thread-safe.
class ServiceRate {
 public:
  // What a replica had left after a step.
  struct Backlog {
    bool has_free_slots = true;
    std::array<int64_t, kNumPriorities> num_prompts{};        // that run and are still to be computed, by class
    std::array<int64_t, kNumPriorities> num_prompt_tokens{};  // of these, so many tokens
  };
  struct Step {
    absl::Duration took;
    int64_t num_prompt_tokens = 0;  // computed
    int64_t num_finished = 0;       // sequences
    Backlog backlog = {};
  };

  void Observe(int replica, const Step& step) {
    absl::MutexLock lock(&mutex_);
    const double seconds = absl::ToDoubleSeconds(step.took);
    if (!(seconds > 0)) return;
    backlogs_[replica] = step.backlog;
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
  // It has nothing left to do, whatever its last step left.
  void ObserveIdle(int replica) {
    absl::MutexLock lock(&mutex_);
    backlogs_[replica] = {};
  }
  // It died.
  void Forget(int replica) {
    absl::MutexLock lock(&mutex_);
    backlogs_.erase(replica);
  }

  // What is under way ahead of a new prompt, on the replica where that is least. Prompts of higher classes come first;
  // those of its own get as much of a step as it does, until it or they have had enough.
  struct Ahead {
    bool has_free_slots = true;
    int64_t num_prompt_tokens = 0;
  };
  Ahead LeastAhead(int num_replicas, Priority priority, int64_t prompt_tokens) const {
    absl::MutexLock lock(&mutex_);
    if (backlogs_.size() < static_cast<size_t>(num_replicas)) return {};  // one has done nothing yet
    Ahead least{false, std::numeric_limits<int64_t>::max()};
    for (const auto& [replica, backlog] : backlogs_) {
      const auto own = static_cast<size_t>(priority);
      int64_t tokens = std::min(backlog.num_prompt_tokens[own], backlog.num_prompts[own] * prompt_tokens);
      for (size_t c = own + 1; c < kNumPriorities; ++c) tokens += backlog.num_prompt_tokens[c];
      least.num_prompt_tokens = std::min(least.num_prompt_tokens, tokens);
      least.has_free_slots = least.has_free_slots || backlog.has_free_slots;
    }
    return least;
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
  Fading prefilling_ ABSL_GUARDED_BY(mutex_);                           // steps with prompt tokens in them
  Fading finishing_ ABSL_GUARDED_BY(mutex_);                            // all steps
  absl::flat_hash_map<int, Backlog> backlogs_ ABSL_GUARDED_BY(mutex_);  // of each replica, after its last step
};

}  // namespace weft
