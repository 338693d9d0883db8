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

size_t Index(Priority priority) { return static_cast<size_t>(priority); }

}  // namespace

void Ledger::OnReserve(int tenant, int64_t count, const std::variant<QueuePlaces, Refusal>& answer) {
  Refill(tenant);
  Tenant& own = tenants_[static_cast<size_t>(tenant)];
  for (const Priority p : kPriorities) {
    if (!own.has_asked) own.begins_at[Index(p)] = CounterOfOthers(own.account, p).first;
  }
  own.has_asked = true;
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

// The least counter of those that wait in this class and may run, but for one tenant, as low as it may have been in
// this part.
double Ledger::LeastOfOthers(const TenantAccount* account, Priority priority) const {
  double least = kNone;
  for (const SimRequest* request : scene_.live) {
    const TenantAccount* const other = request->raw->account;
    if (request->where != SimRequest::kWaiting || other == account || request->raw->priority != priority) continue;
    const TenantPolicy& policy = scene_.PolicyOf(request->tenant);
    if (other->num_running >= policy.max_running) continue;
    const double cost = tenants_[static_cast<size_t>(request->tenant)].books[Index(priority)].cost;
    least = std::min(least, other->CounterIn(priority) - cost / policy.weight);
  }
  return least;
}

// How far the others have come, at least and at most: those that wait and may run, or who was pulled before them with
// less credit; and while nobody waits in this class, whoever was ever served most there.
std::pair<double, double> Ledger::CounterOfOthers(const TenantAccount* account, Priority priority) const {
  const double least = LeastOfOthers(account, priority), pulled = pulled_[Index(priority)];
  if (least < kNone) return {std::max(least, pulled), std::max(least, pulled)};
  const bool some_wait = std::any_of(scene_.live.begin(), scene_.live.end(), [&](const SimRequest* request) {
    return request->where == SimRequest::kWaiting && request->raw->priority == priority;
  });
  if (some_wait) return {pulled, pulled};
  // A reload may have moved the account of one that nobody here has seen lately, and with it the greatest.
  const auto& [least_most, most_most] = most_[Index(priority)];
  return {least_most, was_ever_reloaded_ ? kNone : most_most};
}

double Ledger::CreditOf(int tenant) const { return scene_.plan.queue.max_credit / scene_.PolicyOf(tenant).weight; }

void Ledger::BeforePush(const SimRequest& request) {
  const Tenant& own = Of(request);
  had_none_waiting_ = std::none_of(scene_.live.begin(), scene_.live.end(), [&](const SimRequest* other) {
    return other->tenant == request.tenant && other->where == SimRequest::kWaiting &&
           other->raw->priority == request.priority;
  });
  counter_before_push_ = own.account != nullptr ? own.account->CounterIn(request.priority) : 0;
  lift_before_push_ = CounterOfOthers(own.account, request.priority);
  lift_before_push_.first -= CreditOf(request.tenant);
  lift_before_push_.second -= CreditOf(request.tenant);
}

// A tenant that comes back is lifted to the others but for its credit, so that idling earns no more; and no further.
void Ledger::AfterPush(const SimRequest& request) {
  Tenant& own = Of(request);
  const bool was_known = own.account != nullptr;
  own.account = request.raw->account;
  const size_t c = Index(request.priority);
  const double after = own.account->CounterIn(request.priority);
  if (had_none_waiting_) {
    // One that has only had places may have been lifted, unseen; and moved by a reload.
    const double unseen = was_ever_reloaded_ ? kNone : most_[c].most;
    const double high = std::max(was_known ? lift_before_push_.second : unseen, counter_before_push_);
    CHECK(after >= lift_before_push_.first - Slack(after), "who comes back is lifted to the others");
    CHECK(after <= high + Slack(high), "who comes back is lifted no further than to the others");
    const bool is_sure = !was_ever_reloaded_ && !ForgetsTenants();
    CHECK(was_known || !is_sure || after >= own.begins_at[c] - Slack(after), "a new name brings no credit");
  } else {
    CHECK(after == counter_before_push_, "who waits is not lifted");
  }
  for (size_t other = 0; other < kNumPriorities; ++other) {
    if (!was_known || other == c) own.books[other].counter = own.account->counters[other].load();
  }
  own.level -= static_cast<double>(request.prompt.size());
  --own.num_reserved;
  --num_reserved_;
}

void Ledger::Begin() {
  was_reloaded_ = false;
  for (Tenant& tenant : tenants_) {
    for (Book& book : tenant.books) book.price = book.cost = 0;
  }
  for (Tenant& tenant : tenants_) {
    tenant.num_left = 0;
    tenant.was_held_back = tenant.account != nullptr && !tenant.account->MayRun();

    tenant.num_running = tenant.account != nullptr ? tenant.account->num_running : 0;
    if (!tenant.was_held_back) continue;
    for (const Priority p : kPriorities) tenant.books[Index(p)].least_of_others = LeastOfOthers(tenant.account, p);
  }
}

void Ledger::End(const std::array<double, kNumPriorities>& pulled_counters) {
  for (size_t c = 0; c < kNumPriorities; ++c) pulled_[c] = std::max(pulled_[c], pulled_counters[c]);
  AddPrices();
  for (size_t i = 0; i < tenants_.size(); ++i) {
    const double weight = scene_.PolicyOf(static_cast<int>(i)).weight;
    for (size_t c = 0; c < kNumPriorities; ++c) {
      const Book& book = tenants_[i].books[c];
      most_[c].most = std::max(most_[c].most, book.counter + book.cost / weight);
      if (tenants_[i].account == nullptr) continue;
      most_[c].least = std::max(most_[c].least, tenants_[i].account->CounterIn(static_cast<Priority>(c)));
    }
  }
  for (auto& [least, most] : most_) most = std::max(most, least);
  int num_left = 0;
  for (const Tenant& tenant : tenants_) num_left += tenant.num_left;
  for (size_t i = 0; i < tenants_.size(); ++i) {
    Tenant& tenant = tenants_[i];
    if (tenant.account == nullptr) continue;
    for (const Priority p : kPriorities) {
      CheckCounter(static_cast<int>(i), tenant, p);
      if (num_left == 1 && tenant.num_left == 1 && tenant.left_at_end) CheckLift(static_cast<int>(i), p);
    }
  }
  if (scene_.plan.scenario == Scenario::kFair) {
    for (const Priority p : kPriorities) CheckShares(p);
  }
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
    Book& book = tenant.books[Index(told.request->priority)];
    if (told.what == Told::What::kStart) {
      book.price -= (1 - prices.cached_token_price) * static_cast<double>(told.value);
    } else if (told.what == Told::What::kToken) {
      book.price += prices.output_token_price;
      book.cost += prices.output_token_price;
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
    Of(*request).books[Index(request->priority)].price += token_price * static_cast<double>(request->prompt.size());
  }
}

// A tenant pays for what it gets, once; no less, and more only where it is lifted.
void Ledger::CheckCounter(int index, Tenant& tenant, Priority priority) {
  const TenantPolicy& policy = scene_.PolicyOf(index);
  Book& book = tenant.books[Index(priority)];
  const double paid = book.price / policy.weight;
  const double expected = book.counter + paid;
  const double actual = tenant.account->CounterIn(priority);
  const double most = most_[Index(priority)].most;
  book.counter = actual;
  book.service += paid;
  if (std::abs(actual - expected) <= Slack(expected) || was_reloaded_) return;
  CHECK(actual > expected, "a tenant pays for what it gets");
  CHECK(tenant.was_held_back && tenant.num_left > 0, "a tenant pays for nothing else");
  CHECK(actual <= most + Slack(most), "a tenant is lifted no further than to the others");
}

// One of a tenant's requests has left, and its cap held others back until then: that earned it no more credit.
void Ledger::CheckLift(int index, Priority priority) const {
  const Tenant& tenant = tenants_[static_cast<size_t>(index)];
  const double before = tenant.books[Index(priority)].least_of_others;
  const double of_others = std::min(before, LeastOfOthers(tenant.account, priority));
  const double least = std::max(of_others, pulled_[Index(priority)]) - CreditOf(index);
  if (!tenant.was_held_back || tenant.account->num_running != tenant.num_running - 1) return;
  if (before == kNone || tenant.account->waiting[Index(priority)].empty()) return;
  CHECK(tenant.account->CounterIn(priority) >= least - Slack(least), "whom its cap held back is lifted to the others");
}

// The bound of the virtual token counter: two tenants that always want more are served the same over their weights, but
// for twice what one may be given before it is counted, and for the credit of one. Caps let counters part before, by
// twice as much again.
void Ledger::CheckShares(Priority priority) {
  const size_t count = tenants_.size();
  auto& [gaps, both_want] = gaps_[Index(priority)];
  gaps.resize(count * count);
  both_want.resize(count * count);
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
  const double bound =
      ((has_caps ? 4 : 2) * (prompt + output) + plan.queue.even_tokens + plan.queue.max_credit) / lightest;
  const auto wants_more = [&](size_t i) {
    const TenantAccount* const account = tenants_[i].account;
    return account != nullptr && !account->waiting[Index(priority)].empty() && account->MayRun();
  };
  for (size_t a = 0; a < count; ++a) {
    for (size_t b = 0; b < a; ++b) {
      const double gap = tenants_[a].books[Index(priority)].service - tenants_[b].books[Index(priority)].service;
      const bool both = wants_more(a) && wants_more(b);
      if (!both || !both_want[a * count + b]) gaps[a * count + b] = gap;
      both_want[a * count + b] = both;
      CHECK(std::abs(gap - gaps[a * count + b]) <= bound, "tenants that want more are served by weight");
    }
  }
}

}  // namespace weft
