#include "tests/simulator/ledger.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "kernels/check.h"

namespace weft {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

// Sums of the same numbers in another order.
double Slack(double value) { return 1e-9 * (1 + std::abs(value)); }

// Of the classes in which a tenant waits; the lowest if it doesn't.
Priority HighestWaiting(const TenantAccount& account) {
  int c = kNumPriorities - 1;
  while (c > 0 && account.waiting[static_cast<size_t>(c)].empty()) --c;
  return static_cast<Priority>(c);
}

}  // namespace

void Ledger::OnReserve(int tenant, int64_t count, const std::variant<QueuePlaces, Refusal>& answer) {
  Refill(tenant);
  Tenant& own = tenants_[static_cast<size_t>(tenant)];
  const TenantPolicy& policy = scene_.PolicyOf(tenant);
  int64_t own_places = own.num_reserved;
  for (const SimRequest* request : scene_.live) {
    own_places += request->tenant == tenant && request->where == SimRequest::kWaiting ? 1 : 0;
  }
  const int64_t left = scene_.plan.queue.max_requests - scene_.queue.size() - num_reserved_;
  const bool fits_own = own_places + count <= policy.max_queued;
  const bool fits = count <= left && (!scene_.plan.queue.leave_room || own_places + count <= std::max(left, count));
  const bool has_tokens = own.level > Slack(own.level);
  const bool has_none = own.level < -Slack(own.level);
  if (const auto* refusal = std::get_if<Refusal>(&answer)) {
    CHECK(refusal->retry_after >= absl::Seconds(1) && refusal->retry_after <= absl::Minutes(1), "when to come again");
    switch (refusal->reason) {
      case Refusal::Reason::kClosed:
        CHECK(scene_.queue.closed(), "a queue that is open takes requests");
        break;
      case Refusal::Reason::kTenantQueueFull:
        CHECK(!fits_own, "a tenant may queue what its policy says");
        break;
      case Refusal::Reason::kTenantRate:
        CHECK(!has_tokens || ForgetsTenants(), "a tenant that has tokens left is not refused");
        break;
      case Refusal::Reason::kQueueFull:
        CHECK(!fits, "a queue that has room takes requests");
        break;
      case Refusal::Reason::kTooSlow:
        CHECK(scene_.plan.queue.max_time_to_first_token < absl::InfiniteDuration(), "nobody asked for a bound");
    }
    return;
  }
  CHECK(!scene_.queue.closed(), "a closed queue takes nothing");
  CHECK(fits_own, "a tenant queues no more than its policy says");
  CHECK(fits, "the queue takes no more than it may");
  CHECK(!has_none || ForgetsTenants(), "a tenant that has used up its tokens is refused");
  own.num_reserved += count;
  num_reserved_ += count;
}

void Ledger::OnReturn(int tenant, int64_t count) {
  tenants_[static_cast<size_t>(tenant)].num_reserved -= count;
  num_reserved_ -= count;
}

void Ledger::OnTimeToFirstToken(int tenant) { Refill(tenant); }

void Ledger::Refill(int tenant) {
  Tenant& own = tenants_[static_cast<size_t>(tenant)];
  const auto capacity = static_cast<double>(scene_.PolicyOf(tenant).max_tokens_per_minute);
  const absl::Time now = scene_.clock.Now();
  const double minutes = own.is_filled ? std::max(absl::FDivDuration(now - own.filled_at, absl::Minutes(1)), 0.0) : 0;
  own.level = own.is_filled ? std::min(capacity, own.level + capacity * minutes) : capacity;
  own.is_filled = true;
  own.filled_at = now;
}

// The least counter of those that wait in this class or a higher one and may run, but for one tenant, as low as it may
// have been in this part.
double Ledger::LeastOfOthers(const TenantAccount* account, Priority priority) const {
  double least = kNone;
  for (const SimRequest* request : scene_.live) {
    const TenantAccount* const other = request->raw->account;
    if (request->where != SimRequest::kWaiting || other == account || request->raw->priority < priority) continue;
    const TenantPolicy& policy = scene_.PolicyOf(request->tenant);
    if (other->num_running >= policy.max_running) continue;
    least = std::min(least, other->counter - tenants_[static_cast<size_t>(request->tenant)].cost / policy.weight);
  }
  return least;
}

// Where a tenant is lifted to now, at least and at most: to the others that wait and may run; while nobody waits in
// this class or a higher one, to whoever was ever served most; and otherwise to the tenant that was last pulled from.
std::pair<double, double> Ledger::LiftOf(const TenantAccount* account, Priority priority) const {
  const double least = LeastOfOthers(account, priority);
  if (least < kNone) return {least, least};
  const bool some_wait = std::any_of(scene_.live.begin(), scene_.live.end(), [&](const SimRequest* request) {
    return request->where == SimRequest::kWaiting && request->raw->priority >= priority;
  });
  return some_wait ? std::pair(least_pulled_, most_pulled_) : std::pair(least_most_, most_most_);
}

void Ledger::BeforePush(const SimRequest& request) {
  const Tenant& own = Of(request);
  had_none_waiting_ = std::none_of(scene_.live.begin(), scene_.live.end(), [&](const SimRequest* other) {
    return other->tenant == request.tenant && other->where == SimRequest::kWaiting &&
           other->raw->priority == request.priority;
  });
  counter_before_push_ = own.account != nullptr ? own.account->counter : 0;
  lift_before_push_ = LiftOf(own.account, request.priority);
}

// A tenant that comes back is lifted to the others, so that idling earns no credit; and no further.
void Ledger::AfterPush(const SimRequest& request) {
  Tenant& own = Of(request);
  const bool was_known = own.account != nullptr;  // or a reload may have lifted it, unseen
  own.account = request.raw->account;
  const double after = own.account->counter;
  if (had_none_waiting_) {
    const double high = std::max(was_known ? lift_before_push_.second : most_most_, counter_before_push_);
    CHECK(after >= lift_before_push_.first - Slack(after), "who comes back is lifted to the others");
    CHECK(after <= high + Slack(high), "who comes back is lifted no further than to the others");
  } else {
    CHECK(after == counter_before_push_, "who waits is not lifted");
  }
  own.counter = after;
  own.level -= static_cast<double>(request.prompt.size());
  --own.num_reserved;
  --num_reserved_;
}

void Ledger::Begin() {
  was_reloaded_ = false;
  for (Tenant& tenant : tenants_) tenant.price = tenant.cost = 0;
  for (Tenant& tenant : tenants_) {
    tenant.num_left = 0;
    tenant.was_held_back = tenant.account != nullptr && !tenant.account->MayRun();

    tenant.num_running = tenant.account != nullptr ? tenant.account->num_running : 0;
    if (tenant.was_held_back) tenant.least_of_others = LeastOfOthers(tenant.account, HighestWaiting(*tenant.account));
  }
}

void Ledger::End(double least_pulled_counter, double most_pulled_counter) {
  least_pulled_ = least_pulled_counter;
  most_pulled_ = most_pulled_counter;
  AddPrices();
  for (size_t i = 0; i < tenants_.size(); ++i) {
    const Tenant& tenant = tenants_[i];
    most_most_ = std::max(most_most_, tenant.counter + tenant.cost / scene_.PolicyOf(static_cast<int>(i)).weight);
    if (tenant.account != nullptr) least_most_ = std::max(least_most_, tenant.account->counter);
  }
  most_most_ = std::max(most_most_, least_most_);
  int num_left = 0;
  for (const Tenant& tenant : tenants_) num_left += tenant.num_left;
  for (size_t i = 0; i < tenants_.size(); ++i) {
    Tenant& tenant = tenants_[i];
    if (tenant.account == nullptr) continue;
    CheckCounter(static_cast<int>(i), tenant);
    if (num_left == 1 && tenant.num_left == 1 && tenant.left_at_end) CheckLift(tenant);
  }
  if (scene_.plan.scenario == Scenario::kFair && scene_.plan.clients.asks_class == 0) CheckShares();
  if (!ForgetsTenants()) return;
  for (Tenant& tenant : tenants_) tenant.account = nullptr;
  for (const SimRequest* request : scene_.live) {
    if (!request->finish.has_value()) Of(*request).account = request->raw->account;
  }
}

void Ledger::AddPrices() {
  const FairQueueOptions& prices = scene_.plan.queue;
  for (const Told& told : scene_.told) {
    Tenant& tenant = Of(*told.request);
    if (told.what == Told::What::kStart) {
      tenant.price -= (1 - prices.cached_token_price) * static_cast<double>(told.value);
    } else if (told.what == Told::What::kToken) {
      tenant.price += prices.output_token_price;
      tenant.cost += prices.output_token_price;
      tenant.level -= 1;
    } else if (told.what == Told::What::kFinish && told.request->where >= 0) {
      ++tenant.num_left;
      const FinishReason reason = told.request->finish->reason;
      tenant.left_at_end = reason == FinishReason::kStop || reason == FinishReason::kLength;
    }
  }
  for (SimRequest* request : scene_.live) {
    if (request->charged || request->finish.has_value() || !request->raw->progress.charged) continue;
    request->charged = true;
    const double token_price = request->sampling.score_prompt ? prices.scored_token_price : 1;
    Of(*request).price += token_price * static_cast<double>(request->prompt.size());
  }
}

// A tenant pays for what it gets, once; no less, and more only where it is lifted.
void Ledger::CheckCounter(int index, Tenant& tenant) {
  const TenantPolicy& policy = scene_.PolicyOf(index);
  const double paid = tenant.price / policy.weight;
  const double expected = tenant.counter + paid;
  const double actual = tenant.account->counter;
  tenant.counter = actual;
  tenant.service += paid;
  if (std::abs(actual - expected) <= Slack(expected)) return;
  CHECK(actual > expected, "a tenant pays for what it gets");
  CHECK(tenant.was_held_back && (tenant.num_left > 0 || was_reloaded_), "a tenant pays for nothing else");
  CHECK(actual <= most_most_ + Slack(most_most_), "a tenant is lifted no further than to the others");
}

// One of a tenant's requests has left, and its cap held others back until then: that earned it no credit.
void Ledger::CheckLift(const Tenant& tenant) const {
  const double least = std::min(tenant.least_of_others, LeastOfOthers(tenant.account, HighestWaiting(*tenant.account)));
  if (!tenant.was_held_back || tenant.account->num_running != tenant.num_running - 1) return;
  if (tenant.least_of_others == kNone) return;
  CHECK(tenant.account->counter >= least - Slack(least), "whom its cap held back is lifted to the others");
}

// The bound of the virtual token counter: two tenants that always want more are served the same over their weights, but
// for twice what one may be given before it is counted. Caps let counters part before, by twice as much again.
void Ledger::CheckShares() {
  const size_t count = tenants_.size();
  gaps_.resize(count * count);
  both_want_.resize(count * count);
  const Plan& plan = scene_.plan;
  const double output =
      plan.queue.output_token_price * plan.clients.max_output * plan.limits.max_num_seqs * plan.num_replicas;
  double lightest = kNone;
  bool has_caps = false;
  for (size_t i = 0; i < count; ++i) {
    const TenantPolicy& policy = scene_.PolicyOf(static_cast<int>(i));
    lightest = std::min(lightest, policy.weight);
    has_caps = has_caps || policy.max_running < TenantPolicy::kUnlimited;
  }
  const double prompt = std::max(plan.queue.scored_token_price, 1.0) * static_cast<double>(plan.limits.max_model_len);
  const double bound = (has_caps ? 4 : 2) * (prompt + output) / lightest;
  const auto wants_more = [&](size_t i) {
    const TenantAccount* const account = tenants_[i].account;
    return account != nullptr && account->num_waiting > 0 && account->MayRun();
  };
  for (size_t a = 0; a < count; ++a) {
    for (size_t b = 0; b < a; ++b) {
      const double gap = tenants_[a].service - tenants_[b].service;
      const bool both = wants_more(a) && wants_more(b);
      if (!both || !both_want_[a * count + b]) gaps_[a * count + b] = gap;
      both_want_[a * count + b] = both;
      CHECK(std::abs(gap - gaps_[a * count + b]) <= bound, "tenants that want more are served by weight");
    }
  }
}

}  // namespace weft
