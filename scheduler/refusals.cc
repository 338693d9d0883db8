// The part of FairQueue that says who may wait, and when to come again.
#include <algorithm>
#include <utility>

#include "scheduler/fair_queue.h"

namespace weft {
namespace {

constexpr absl::Duration kShortestRetry = absl::Seconds(1);  // the header counts in seconds
constexpr absl::Duration kLongestRetry = absl::Minutes(1);

absl::Duration RetryAfter(double seconds) { return std::clamp(absl::Seconds(seconds), kShortestRetry, kLongestRetry); }

}  // namespace

QueuePlaces::~QueuePlaces() {
  if (count_ > 0) queue_->ReturnPlaces(*account_, count_);
}

std::variant<QueuePlaces, Refusal> FairQueue::Reserve(const std::string& tenant, Priority priority, int64_t count) {
  absl::MutexLock lock(&mutex_);
  ForgetIdle();
  TenantAccount& account = AccountOf(tenant);
  std::optional<Refusal> refusal = WhyNot(account, count);
  if (!refusal.has_value()) refusal = TooSlow(account, priority, 0);
  if (refusal.has_value()) return *refusal;
  account.num_reserved += count;
  num_reserved_ += count;
  return QueuePlaces(*this, account, count);
}

std::optional<Refusal> FairQueue::WhyNot(TenantAccount& account, int64_t count) {
  using Reason = Refusal::Reason;
  if (closed_) return Refusal{Reason::kClosed, kShortestRetry};
  const double finished_a_second = service_rate_.FinishedPerSecond() * num_replicas_;
  const absl::Duration next_place = RetryAfter(finished_a_second > 0 ? 1 / finished_a_second : 0);
  const int64_t taken = num_waiting_ + num_reserved_;
  const int64_t own = account.num_waiting + account.num_reserved;
  if (own + count > account.policy.max_queued) return Refusal{Reason::kTenantQueueFull, next_place};
  if (!account.bucket.HasTokens()) {
    return Refusal{Reason::kTenantRate, RetryAfter(absl::ToDoubleSeconds(account.bucket.Wait()))};
  }
  const int64_t left = options_.max_requests - taken;
  // One that holds no more than what is left always leaves room for the next.
  if (count > left || (options_.leave_room && own + count > std::max<int64_t>(left, count))) {
    return Refusal{Reason::kQueueFull, next_place};
  }
  return std::nullopt;
}

std::optional<Refusal> FairQueue::CheckTimeToFirstToken(const std::string& tenant, Priority priority,
                                                        int64_t prompt_tokens) {
  absl::MutexLock lock(&mutex_);
  return TooSlow(AccountOf(tenant), priority, prompt_tokens);
}

// What waits ahead: this tenant's own requests at its share of the replicas' speed, but no more than everybody's; and
// what is under way ahead of it on the replica where that is least.
std::optional<Refusal> FairQueue::TooSlow(const TenantAccount& account, Priority priority,
                                          int64_t prompt_tokens) const {
  const double tokens_a_second = service_rate_.PromptTokensPerSecond();
  const double finished_a_second = service_rate_.FinishedPerSecond() * num_replicas_;
  if (options_.max_time_to_first_token == absl::InfiniteDuration() || tokens_a_second <= 0) return std::nullopt;
  double all_requests = 0, all_tokens = 0, own_requests = 0, own_tokens = 0, weights = account.policy.weight;
  for (size_t c = static_cast<size_t>(priority); c < kNumPriorities; ++c) {
    for (const TenantAccount* other : waiting_tenants_[c]) {
      const auto requests = static_cast<double>(other->waiting[c].size());
      const auto tokens = static_cast<double>(other->waiting_tokens[c]);
      all_requests += requests;
      all_tokens += tokens;
      if (other == &account) {
        own_requests += requests;
        own_tokens += tokens;
      } else {
        weights += other->policy.weight;
      }
    }
  }
  const double share = account.policy.weight / weights;
  const ServiceRate::Ahead ahead = service_rate_.LeastAhead(num_replicas_, priority, prompt_tokens);
  const double tokens_waiting = std::min(all_tokens, own_tokens / share) / num_replicas_;
  const double tokens_ahead = tokens_waiting + static_cast<double>(ahead.num_prompt_tokens + prompt_tokens);
  const double requests_ahead = all_requests == 0 ? 0 : std::min(all_requests, own_requests / share) + 1;
  double wait = tokens_ahead / tokens_a_second;
  if (finished_a_second > 0 && !ahead.has_free_slots) wait = std::max(wait, requests_ahead / finished_a_second);
  const double too_long = wait - absl::ToDoubleSeconds(options_.max_time_to_first_token);
  if (too_long <= 0) return std::nullopt;
  return Refusal{Refusal::Reason::kTooSlow, RetryAfter(too_long)};
}

void FairQueue::ReturnPlaces(TenantAccount& account, int64_t count) {
  absl::MutexLock lock(&mutex_);
  account.num_reserved -= count;
  num_reserved_ -= count;
}

}  // namespace weft
