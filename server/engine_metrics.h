// How the ranks of the engines spend their time, as Prometheus shows it. engine/README.md says how to read it.
#pragma once

#include <deque>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/engine_stats.h"
#include "prometheus/metric_family.h"

namespace weft {

// Counters are since each engine's start. Ratios are of the time since the last look that was kWindow ago or longer: of
// the last few seconds for whoever looks often, of the time between for whoever looks seldom; at first since the
// start. Thread-safe.
class EngineMetrics {
 public:
  static constexpr absl::Duration kWindow = absl::Seconds(5);

  // `replicas`: by id; of one without an engine there are no series.
  std::vector<prometheus::MetricFamily> Families(const std::vector<EngineStats>& replicas, absl::Time now);

 private:
  struct Look {
    absl::Time at;
    std::vector<EngineStats> replicas;
  };

  std::vector<EngineStats> LastSeconds(const std::vector<EngineStats>& replicas, absl::Time now);

  absl::Mutex mutex_;
  std::deque<Look> looks_ ABSL_GUARDED_BY(mutex_);  // oldest first, a second apart or more; one is out of the window
};

}  // namespace weft
