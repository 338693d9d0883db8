// Counts what one rank does: behind Worker::stats.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/engine_stats.h"
#include "engine/moe_mlp.h"
#include "engine/shared_stopwatch.h"
#include "kernels/communicator.h"

namespace weft {

// Written by the worker's thread, which waits for no reader. Costs less than half a microsecond a step.
class RankRecorder {
 public:
  // `fixed`: what doesn't change. The rank's groups may be null, and outlive this.
  RankRecorder(const RankStats& fixed, const Communicator* tensor_group, const Communicator* stages,
               SteadyNow now = &std::chrono::steady_clock::now);

  void BeginStep();
  void EndStep();

  // Whether the last load is so old that another is worth a copy from the device.
  bool WantsExpertLoad() const { return now_() - load_time_ >= absl::ToChronoNanoseconds(kExpertLoadPeriod); }
  void SetExpertLoad(const ExpertLoad& load);

  RankStats stats() const;  // thread-safe

 private:
  // Nanoseconds.
  using Sum = std::atomic<int64_t>;
  static void Set(Sum& sum, absl::Duration value) { sum.store(absl::ToInt64Nanoseconds(value)); }

  const RankStats fixed_;
  const Communicator* const tensor_group_;
  const Communicator* const stages_;
  const SteadyNow now_;
  SharedStopwatch idle_, in_step_;
  Sum busy_{0}, waiting_in_stage_{0}, waiting_for_stages_{0};
  std::atomic<int64_t> num_steps_{0};
  std::chrono::steady_clock::time_point load_time_;

  mutable absl::Mutex mutex_;  // the worker only tries it
  int first_expert_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<int64_t> expert_tokens_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
