// The part of FairQueue that counts service: what it costs, and where a tenant starts that comes or comes back.
#include <algorithm>
#include <limits>

#include "scheduler/fair_queue.h"

namespace weft {

double FairQueue::PromptPrice(const Request& request) const {
  const double token_price = request.sampling.score_prompt ? options_.scored_token_price : 1.0;
  return token_price * static_cast<double>(request.prompt.size());
}

void FairQueue::Charge(TenantAccount& account, Priority priority, double price) {
  const double counter = account.CounterIn(priority) + price / account.policy.weight;
  account.SetCounter(priority, counter);
  double& most = most_counters_[static_cast<size_t>(priority)];
  most = std::max(most, counter);
}

void FairQueue::ChargeCached(const Request& request, int64_t tokens) {
  absl::MutexLock lock(&mutex_);
  Charge(*request.account, request.priority, (options_.cached_token_price - 1.0) * static_cast<double>(tokens));
}

void FairQueue::ChargeDrawn(absl::Span<const Request* const> requests) {
  absl::MutexLock lock(&mutex_);
  for (const Request* request : requests) {
    Charge(*request->account, request->priority, options_.output_token_price);
    request->account->bucket.Take(1);
  }
}

// How far those have come that wait and may run; where they have credit, how far those before them had.
double FairQueue::CounterOfOthers(const TenantAccount& account, Priority priority) const {
  const auto c = static_cast<size_t>(priority);
  double least = std::numeric_limits<double>::infinity();
  for (const TenantAccount* other : waiting_tenants_[c]) {
    if (other != &account && other->MayRun()) least = std::min(least, other->CounterIn(priority));
  }
  if (least == std::numeric_limits<double>::infinity()) return IdleCounter(priority);
  return std::max(least, pulled_counters_[c]);
}

// What it left of its share until now is its credit, up to a bound.
void FairQueue::LiftToOthers(TenantAccount& account, Priority priority) {
  const double least = CounterOfOthers(account, priority) - options_.max_credit / account.policy.weight;
  account.SetCounter(priority, std::max(account.CounterIn(priority), least));
}

// Its cap let it run nothing more until now; that earned it no more credit than idling.
void FairQueue::LiftHeldBack(TenantAccount& account) {
  for (int c = 0; c < kNumPriorities; ++c) {
    if (!account.waiting[static_cast<size_t>(c)].empty()) LiftToOthers(account, static_cast<Priority>(c));
  }
}

// Where a tenant starts that finds nobody to compare with. While nobody waits in a class, nobody is served there at
// another's cost, and all are even.
double FairQueue::IdleCounter(Priority priority) const {
  const auto c = static_cast<size_t>(priority);
  return waiting_tenants_[c].empty() ? most_counters_[c] : pulled_counters_[c];
}

}  // namespace weft
