// What every part of the simulator sees.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/dispatcher.h"
#include "scheduler/fair_queue.h"
#include "scheduler/tenant_account.h"
#include "scheduler/tenant_policy.h"
#include "tests/simulator/plan.h"
#include "tests/simulator/sim_clock.h"
#include "tests/simulator/sim_request.h"
#include "tests/simulator/sim_sink.h"
#include "tests/simulator/trace.h"
#include "tests/simulator/workload.h"

namespace weft {

struct Scene {
  Scene(const Plan& p, bool prints) : plan(p), trace(prints), queue(p.queue, clock) {}

  const TenantPolicy& PolicyOf(int tenant) const { return policies->For(Workload::TenantName(tenant)); }

  const Plan plan;
  SimClock clock;
  Trace trace;
  FairQueue queue;
  std::shared_ptr<const TenantPolicies> policies = std::make_shared<TenantPolicies>();  // shared with the queue
  std::deque<SimRequest> requests;                                                      // by id
  std::vector<SimRequest*> live;   // those that are pushed and not finished, by id; settled after each part of an event
  std::vector<Told> told;          // in this part of the event
  std::vector<SimRequest*> asked;  // since the last pull began: whether they were cancelled, in this order
  uint64_t moment = 1;             // grows with every part of every event
  const Dispatcher* dispatcher = nullptr;  // the world's
  bool failed = false;                     // no replica is left
};

}  // namespace weft
