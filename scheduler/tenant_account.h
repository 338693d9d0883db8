// What the fair queue knows of a tenant.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "scheduler/request.h"
#include "scheduler/tenant_policy.h"
#include "scheduler/token_bucket.h"

namespace weft {

// Owned by a FairQueue and guarded by its lock; others only carry its address. Lives while anything of the tenant
// waits, runs or has a place, and until its counter and its bucket say nothing any more.
struct TenantAccount {
  using Waiting = std::deque<std::unique_ptr<Request>>;  // in order of Request::id

  std::string name;
  TenantPolicy policy;
  std::array<Waiting, kNumPriorities> waiting;
  std::array<int64_t, kNumPriorities> waiting_tokens{};  // of prompts
  int64_t num_waiting = 0;                               // in all classes
  int64_t num_reserved = 0;                              // places promised
  int64_t num_running = 0;
  // Service received so far in each class, in prompt tokens, over the weight. Classes are counted apart: what a tenant
  // got in a high one, where nobody was before it, costs it no turn in a lower one.
  std::array<double, kNumPriorities> counters{};
  TokenBucket bucket;

  double& CounterIn(Priority priority) { return counters[static_cast<size_t>(priority)]; }
  Waiting& WaitingIn(Priority priority) { return waiting[static_cast<size_t>(priority)]; }
  bool MayRun() const { return num_running < policy.max_running; }
  bool IsIdle() const { return num_waiting == 0 && num_reserved == 0 && num_running == 0; }
};

}  // namespace weft
