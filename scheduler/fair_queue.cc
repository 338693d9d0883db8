#include "scheduler/fair_queue.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

#include "kernels/check.h"

namespace weft {
namespace {

// A pull looks so far past requests that must wait but hold nobody up.
constexpr size_t kMaxPassedRequests = 16;  // of one tenant
constexpr size_t kMaxPassedTenants = 16;

}  // namespace

FairQueue::FairQueue(const FairQueueOptions& options, const Clock& clock)
    : options_(options), clock_(clock), policies_(std::make_shared<TenantPolicies>()) {}

FairQueue::~FairQueue() = default;

void FairQueue::SetPolicies(std::shared_ptr<const TenantPolicies> policies) {
  absl::MutexLock lock(&mutex_);
  policies_ = std::move(policies);
  std::vector<TenantAccount*> held_back;
  for (auto& [name, account] : accounts_) {
    if (!account->MayRun()) held_back.push_back(account.get());
    const double old_weight = account->policy.weight;
    account->policy = policies_->For(name);
    // What it is ahead of others, or behind, was counted by its old weight.
    for (const Priority p : kPriorities) {
      const double pulled = pulled_counters_[static_cast<size_t>(p)];
      account->SetCounter(p, pulled + (account->CounterIn(p) - pulled) * old_weight / account->policy.weight);
      double& most = most_counters_[static_cast<size_t>(p)];
      most = std::max(most, account->CounterIn(p));
    }
  }
  // By all others' new counters, and in an order that is not the hash's, for one who is lifted counts for the next.
  std::sort(held_back.begin(), held_back.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  for (TenantAccount* account : held_back) LiftHeldBack(*account);
  ++version_;
}

std::shared_ptr<const TenantPolicies> FairQueue::policies() const {
  absl::MutexLock lock(&mutex_);
  return policies_;
}

TenantAccount& FairQueue::AccountOf(const std::string& tenant) {
  std::unique_ptr<TenantAccount>& account = accounts_[tenant];
  if (account == nullptr) {
    account = std::make_unique<TenantAccount>();
    account->name = tenant;
    account->policy = policies_->For(tenant);
    account->even_tokens = options_.even_tokens;
    for (const Priority p : kPriorities) account->SetCounter(p, CounterOfOthers(*account, p));  // no credit yet
  }
  account->bucket.Refill(clock_.Now(), account->policy.max_tokens_per_minute);
  return *account;
}

bool FairQueue::Push(QueuePlaces& places, std::unique_ptr<Request>& request) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return false;
  CHECK(places.count_ > 0, "a request needs a place");
  --places.count_;
  --num_reserved_;
  TenantAccount& account = *places.account_;
  --account.num_reserved;
  request->account = &account;
  if (account.WaitingIn(request->priority).empty()) LiftToOthers(account, request->priority);
  account.bucket.Take(static_cast<int64_t>(request->prompt.size()));
  Insert(std::move(request));
  return true;
}

// In its tenant's line, by age: what comes back has its old place.
void FairQueue::Insert(std::unique_ptr<Request> request) {
  TenantAccount& account = *request->account;
  const auto c = static_cast<size_t>(request->priority);
  TenantAccount::Waiting& waiting = account.waiting[c];
  if (waiting.empty()) waiting_tenants_[c].push_back(&account);
  request->queued_at = clock_.Now();
  request->offered_at = absl::InfinitePast();
  tickets_[request->id] = {&account, request->priority};
  if (request->deadline < absl::InfiniteFuture()) deadlines_.insert({request->deadline, request->id});
  account.waiting_tokens[c] += static_cast<int64_t>(request->prompt.size());
  ++account.num_waiting;
  ++num_waiting_;
  ++version_;
  const auto place = std::upper_bound(waiting.begin(), waiting.end(), request,
                                      [](const auto& a, const auto& b) { return a->id < b->id; });
  waiting.insert(place, std::move(request));
}

std::unique_ptr<Request> FairQueue::Remove(TenantAccount& account, Priority priority, size_t index) {
  const auto c = static_cast<size_t>(priority);
  TenantAccount::Waiting& waiting = account.waiting[c];
  std::unique_ptr<Request> request = std::move(waiting[index]);
  waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(index));
  if (waiting.empty()) std::erase(waiting_tenants_[c], &account);
  tickets_.erase(request->id);
  deadlines_.erase({request->deadline, request->id});
  account.waiting_tokens[c] -= static_cast<int64_t>(request->prompt.size());
  --account.num_waiting;
  --num_waiting_;
  return request;
}

// Null: it isn't waiting.
std::unique_ptr<Request> FairQueue::Remove(int64_t request_id) {
  const auto found = tickets_.find(request_id);
  if (found == tickets_.end()) return nullptr;
  const auto [account, priority] = found->second;
  const TenantAccount::Waiting& waiting = account->WaitingIn(priority);
  const auto it = std::lower_bound(waiting.begin(), waiting.end(), request_id,
                                   [](const auto& candidate, int64_t id) { return candidate->id < id; });
  return Remove(*account, priority, static_cast<size_t>(it - waiting.begin()));
}

FairQueue::Pulled FairQueue::Pull(Judge judge) {
  Ended ended;
  Pulled pulled;
  {
    absl::MutexLock lock(&mutex_);
    EndOverdue(ended);
    pulled.request = OfferAll(judge, ended).taken;
    if (!ended.empty()) ++version_;  // who stood behind them may go
    pulled.version = version_;
    pulled.next_deadline = deadlines_.empty() ? absl::InfiniteFuture() : deadlines_.begin()->first;
  }
  for (auto& [request, finish] : ended) request->sink->Finish(finish);
  return pulled;
}

// Those that nobody would be offered now, too.
void FairQueue::EndOverdue(Ended& ended) {
  const absl::Time now = clock_.Now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    std::unique_ptr<Request> request = Remove(deadlines_.begin()->second);
    std::optional<FinishEvent> finish = EndOf(*request, now);
    ended.emplace_back(std::move(request), *std::move(finish));
  }
}

FairQueue::Offer FairQueue::OfferAll(Judge judge, Ended& ended) {
  too_large_.clear();
  for (int c = kNumPriorities - 1; c >= 0; --c) {
    const auto priority = static_cast<Priority>(c);
    std::vector<TenantAccount*> passed;
    while (passed.size() < kMaxPassedTenants) {
      TenantAccount* const account = NextTenant(priority, passed);
      if (account == nullptr) break;
      Offer offer = OfferFrom(*account, priority, judge, ended);
      if (offer.taken != nullptr || offer.blocked) return offer;
      passed.push_back(account);
    }
  }
  return {};
}

// Of those that were served least for their weight, or hardly more, the one that runs least; of these the one served
// least, then the one whose request is older.
TenantAccount* FairQueue::NextTenant(Priority priority, absl::Span<TenantAccount* const> passed) {
  const auto c = static_cast<size_t>(priority);
  const auto may_be_next = [&](const TenantAccount* account) {
    return account->MayRun() && std::find(passed.begin(), passed.end(), account) == passed.end();
  };
  double least = std::numeric_limits<double>::infinity();
  for (const TenantAccount* account : waiting_tenants_[c]) {
    if (may_be_next(account)) least = std::min(least, account->CounterIn(priority));
  }
  const auto place = [c, priority](const TenantAccount& tenant) {
    const double rows = static_cast<double>(tenant.num_running) / tenant.policy.weight;
    return std::tuple(rows, tenant.CounterIn(priority), tenant.waiting[c].front()->id);
  };
  TenantAccount* next = nullptr;
  for (TenantAccount* account : waiting_tenants_[c]) {
    const bool is_even =
        account->CounterIn(static_cast<Priority>(c)) <= least + options_.even_tokens / account->policy.weight;
    if (is_even && may_be_next(account) && (next == nullptr || place(*account) < place(*next))) next = account;
  }
  return next;
}

FairQueue::Offer FairQueue::OfferFrom(TenantAccount& account, Priority priority, Judge judge, Ended& ended) {
  const absl::Time now = clock_.Now();
  TenantAccount::Waiting& waiting = account.WaitingIn(priority);
  for (size_t i = 0; i < waiting.size() && i < kMaxPassedRequests;) {
    if (std::optional<FinishEvent> finish = EndOf(*waiting[i], now); finish.has_value()) {
      ended.emplace_back(Remove(account, priority, i), *std::move(finish));
      continue;
    }
    Request& request = *waiting[i];
    if (request.offered_at == absl::InfinitePast()) request.offered_at = now;
    const Verdict verdict = judge(request);
    if (verdict == Verdict::kTake) return {Take(account, priority, i), false};
    const bool may_be_overtaken = request.progress.num_overtakers < kMaxOvertakers;
    if (verdict == Verdict::kBlocked || (verdict == Verdict::kTooLarge && !may_be_overtaken)) return {nullptr, true};
    if (verdict == Verdict::kTooLarge) too_large_.push_back(&request);
    ++i;
  }
  return {};
}

std::unique_ptr<Request> FairQueue::Take(TenantAccount& account, Priority priority, size_t index) {
  for (Request* overtaken : too_large_) ++overtaken->progress.num_overtakers;
  std::unique_ptr<Request> request = Remove(account, priority, index);
  double& pulled = pulled_counters_[static_cast<size_t>(priority)];
  pulled = std::max(pulled, account.CounterIn(priority));
  if (!request->progress.charged) Charge(account, priority, PromptPrice(*request));
  request->progress.charged = true;
  request->weight = account.policy.weight;
  ++account.num_running;
  ++num_running_;
  return request;
}

void FairQueue::GiveBack(std::unique_ptr<Request> request) {
  std::optional<FinishEvent> finish;
  {
    absl::MutexLock lock(&mutex_);
    TenantAccount& account = *request->account;
    --account.num_running;
    --num_running_;
    ++version_;
    // Under the lock: a cancel that comes later finds it in the queue.
    finish = EndOf(*request, clock_.Now());
    if (!failure_.ok()) finish = {.reason = FinishReason::kError, .status = failure_};
    if (!finish.has_value()) return Insert(std::move(request));
  }
  request->sink->Finish(*finish);
}

void FairQueue::Leave(TenantAccount& account) {
  absl::MutexLock lock(&mutex_);
  const bool was_held_back = !account.MayRun();
  --account.num_running;
  --num_running_;
  ++version_;
  if (was_held_back) LiftHeldBack(account);
}

// Names may come from clients of a gateway without end. What is forgotten comes back lifted, its bucket full, and
// without credit.
void FairQueue::ForgetIdle() {
  if (accounts_.size() < 2 * num_kept_accounts_) return;
  const absl::Time now = clock_.Now();
  absl::erase_if(accounts_, [&](const auto& entry) {
    TenantAccount& account = *entry.second;
    account.bucket.Refill(now, account.policy.max_tokens_per_minute);
    bool is_even = true;
    for (int c = 0; c < kNumPriorities; ++c) {
      is_even = is_even && account.CounterIn(static_cast<Priority>(c)) <= IdleCounter(static_cast<Priority>(c));
    }
    return account.IsIdle() && account.bucket.IsFull() && is_even;
  });
  num_kept_accounts_ = std::max<size_t>(accounts_.size(), kMinAccounts);
}

bool FairQueue::Cancel(int64_t request_id) {
  std::unique_ptr<Request> request;
  {
    absl::MutexLock lock(&mutex_);
    request = Remove(request_id);
    if (request == nullptr) return false;
    ++version_;  // who stood behind it may go
  }
  request->sink->Finish({.reason = FinishReason::kCancelled});
  return true;
}

void FairQueue::Fail(const absl::Status& status) {
  std::vector<std::unique_ptr<Request>> failed;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    failure_ = status;
    ++version_;
    for (int c = 0; c < kNumPriorities; ++c) {
      std::vector<TenantAccount*>& tenants = waiting_tenants_[static_cast<size_t>(c)];
      while (!tenants.empty()) failed.push_back(Remove(*tenants.back(), static_cast<Priority>(c), 0));
    }
  }
  for (const auto& request : failed) request->sink->Finish({.reason = FinishReason::kError, .status = status});
}

void FairQueue::WaitForChange(uint64_t version, absl::Time until) {
  absl::MutexLock lock(&mutex_);
  const auto changed = [&] { return version_ != version; };
  mutex_.AwaitWithDeadline(absl::Condition(&changed), until);
}

void FairQueue::Wake() {
  absl::MutexLock lock(&mutex_);
  ++version_;
}

uint64_t FairQueue::version() const {
  absl::MutexLock lock(&mutex_);
  return version_;
}

void FairQueue::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  ++version_;
}

bool FairQueue::closed() const {
  absl::MutexLock lock(&mutex_);
  return closed_;
}

bool FairQueue::drained() const {
  absl::MutexLock lock(&mutex_);
  return closed_ && num_waiting_ == 0 && num_running_ == 0;
}

QueueStats FairQueue::stats() const {
  QueueStats stats;
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, account] : accounts_) {
    if (account->num_waiting == 0 && account->num_running == 0) continue;
    QueueStats::Tenant& tenant = stats.tenants.emplace_back();
    tenant.name = name;
    tenant.num_running = account->num_running;
    tenant.has_policy = policies_->named.contains(name);
    for (size_t c = 0; c < kNumPriorities; ++c) {
      tenant.num_waiting[c] = static_cast<int64_t>(account->waiting[c].size());
    }
  }
  for (size_t c = 0; c < kNumPriorities; ++c) {
    double least = std::numeric_limits<double>::infinity(), most = -least;
    for (const TenantAccount* account : waiting_tenants_[c]) {
      if (!account->MayRun()) continue;
      least = std::min(least, account->CounterIn(static_cast<Priority>(c)));
      most = std::max(most, account->CounterIn(static_cast<Priority>(c)));
    }
    stats.fairness_gap = std::max(stats.fairness_gap, most - least);
  }
  return stats;
}

size_t FairQueue::num_accounts() const {
  absl::MutexLock lock(&mutex_);
  return accounts_.size();
}

void FairQueue::CheckInvariants() const {
  absl::MutexLock lock(&mutex_);
  int64_t num_waiting = 0, num_reserved = 0, num_running = 0;
  for (const auto& [name, account] : accounts_) {
    CHECK(account->num_running >= 0 && account->num_reserved >= 0, "a tenant's counts");
    num_reserved += account->num_reserved;
    num_running += account->num_running;
    int64_t own = 0;
    for (size_t c = 0; c < kNumPriorities; ++c) {
      const TenantAccount::Waiting& waiting = account->waiting[c];
      own += static_cast<int64_t>(waiting.size());
      int64_t tokens = 0;
      for (const auto& request : waiting) {
        tokens += static_cast<int64_t>(request->prompt.size());
        CHECK(tickets_.contains(request->id), "who waits can be found");
      }
      CHECK(tokens == account->waiting_tokens[c], "waiting prompt tokens are counted");
      CHECK(std::is_sorted(waiting.begin(), waiting.end(), [](const auto& a, const auto& b) { return a->id < b->id; }),
            "a tenant's line is in order of arrival");
      const auto& listed = waiting_tenants_[c];
      CHECK(std::count(listed.begin(), listed.end(), account.get()) == (waiting.empty() ? 0 : 1),
            "tenants with something waiting are listed, once");
    }
    CHECK(own == account->num_waiting, "a tenant's waiting requests are counted");
    num_waiting += own;
  }
  CHECK(num_waiting == num_waiting_ && tickets_.size() == static_cast<size_t>(num_waiting),
        "all that wait are counted");
  CHECK(num_reserved == num_reserved_ && num_running == num_running_, "places and runners are counted");
}

}  // namespace weft
