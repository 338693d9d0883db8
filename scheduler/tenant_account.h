// What the fair queue knows of a tenant.
#pragma once

#include <array>
#include <atomic>
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
  // got in a high one, where nobody was before it, costs it no turn in a lower one. Written under the
  // queue's lock; replicas read them without it, for an order that need not be of this moment.
  std::array<std::atomic<double>, kNumPriorities> counters{};
  double even_tokens = 0;  // FairQueueOptions'; never changed
  TokenBucket bucket;

  double CounterIn(Priority priority) const {
    return counters[static_cast<size_t>(priority)].load(std::memory_order_relaxed);
  }
  void SetCounter(Priority priority, double counter) {
    counters[static_cast<size_t>(priority)].store(counter, std::memory_order_relaxed);
  }
  // A tenant with a lower counter than this was served less: by more than what counts as even.
  double EvenFrom(Priority priority, double weight) const { return CounterIn(priority) - even_tokens / weight; }
  Waiting& WaitingIn(Priority priority) { return waiting[static_cast<size_t>(priority)]; }
  bool MayRun() const { return num_running < policy.max_running; }
  bool IsIdle() const { return num_waiting == 0 && num_reserved == 0 && num_running == 0; }
};

// Of a request that runs, without the lock. Some tests have requests that nobody pays for.
inline double ServedOf(const Request& request) {
  return request.account == nullptr ? 0 : request.account->CounterIn(request.priority);
}
inline double EvenFrom(const Request& request) {
  return request.account == nullptr ? 0 : request.account->EvenFrom(request.priority, request.weight);
}

}  // namespace weft
