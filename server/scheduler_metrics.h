// The scheduler's numbers as Prometheus shows them.
#pragma once

#include <vector>

#include "engine/engine_stats.h"
#include "prometheus/metric_family.h"
#include "scheduler/stats.h"

namespace weft {

// What the scheduler and its engines tell at one moment. Plain value.
struct SchedulerSnapshot {
  struct Replica {
    Stats stats;
    bool is_up = true;
    int64_t num_restarts = 0;
    bool is_down_for_good = false;
    EngineStats engine;  // as of now; see EngineMetrics
  };
  std::vector<Replica> replicas;  // by id, dead ones too: what they counted stays counted
  QueueStats queue;
};

// Tenants are named on /metrics, which asks for no key, where the operator has named them first: those with a policy of
// their own, so many, the busiest of them. All others are summed up as tenant "other", as is a tenant of that very
// name.
inline constexpr size_t kMaxNamedTenants = 100;

std::vector<prometheus::MetricFamily> SchedulerFamilies(const SchedulerSnapshot& snapshot);

}  // namespace weft
