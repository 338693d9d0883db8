// The one queue of all tenants and all replicas: strict classes, and within a class weighted fair by tokens of service.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "scheduler/clock.h"
#include "scheduler/request.h"
#include "scheduler/service_rate.h"
#include "scheduler/stats.h"
#include "scheduler/tenant_account.h"
#include "scheduler/tenant_policy.h"

namespace weft {

struct FairQueueOptions {
  int max_requests = 1024;          // waiting and promised a place; one more is refused
  bool leave_room = false;          // for tenants that come later: one alone may fill half of the queue
  double output_token_price = 2.0;  // in prompt tokens: a drawn token costs a whole step of its row
  double cached_token_price = 0.1;  // of a prompt, where it was not computed but taken up
  double even_tokens = 2048;        // tenants whose counters are so close are even: who runs less comes first
  double max_credit = 16384;        // what a tenant keeps of the share that it did not take
  double scored_token_price = 8.0;  // of a prompt that is scored: few fit a step, and each takes the output head
  absl::Duration max_time_to_first_token = absl::InfiniteDuration();  // who would wait longer is refused at once
};

// Why a request is not taken, and when it might be.
struct Refusal {
  enum class Reason { kClosed, kQueueFull, kTenantQueueFull, kTenantRate, kTooSlow };
  Reason reason = Reason::kClosed;
  absl::Duration retry_after;
};

class FairQueue;

// Places in the queue, promised while a request is being prepared so that the work is not done in vain. Destruction
// gives back what was not used.
class QueuePlaces {
 public:
  QueuePlaces(FairQueue& queue, TenantAccount& account, int64_t count)
      : queue_(&queue), account_(&account), count_(count) {}
  QueuePlaces(QueuePlaces&& other) noexcept
      : queue_(other.queue_), account_(other.account_), count_(std::exchange(other.count_, 0)) {}
  QueuePlaces& operator=(QueuePlaces&&) = delete;
  ~QueuePlaces();

 private:
  friend class FairQueue;
  FairQueue* queue_;
  TenantAccount* account_;
  int64_t count_;
};

// What a replica says of a request that it is offered.
enum class Verdict {
  kTake,      // it starts now
  kPass,      // it must wait, but holds nobody up
  kTooLarge,  // it must wait until more blocks are free; kMaxOvertakers that need fewer may overtake it
  kBlocked,   // it must wait, and everybody behind it too
};

// Orders requests by class, then among tenants by a virtual token counter for each class (VTC, arXiv 2401.00588): the
// tenant that was served least for its weight comes first, or, of those that are even, the one that runs least, so that
// who has just been served a little more needn't wait for another's long prompt to make up for it; a tenant that asked
// for nothing, or whose cap held it back, is lifted to the least counter of those that wait, less the credit that it
// may keep of what it left; a new one has none. Within a tenant and class: first come, first served, also for what a
// replica gives back.
//
// Thread-safe. Front ends reserve, push and cancel; replicas pull, settle and give back. Time comes from a clock that
// may jump: back, it costs nothing but what passes until then; forward, it fills buckets and ends deadlines.
class FairQueue {
 public:
  // So many smaller requests may start before one that needs more blocks than are free, or it would starve.
  static constexpr int kMaxOvertakers = 8;

  FairQueue(const FairQueueOptions& options, const Clock& clock);  // the clock outlives the queue
  ~FairQueue();

  // Whole and at once; also for what already waits.
  void SetPolicies(std::shared_ptr<const TenantPolicies> policies);
  std::shared_ptr<const TenantPolicies> policies() const;  // shared by their readers; never changed

  // Places for `count` sequences, or why not. Costs nothing that grows with the request.
  std::variant<QueuePlaces, Refusal> Reserve(const std::string& tenant, Priority priority, int64_t count);
  // Why a prompt of this length had better not wait: its first token would come too late.
  std::optional<Refusal> CheckTimeToFirstToken(const std::string& tenant, Priority priority, int64_t prompt_tokens);
  // Takes one of the places. False: the queue is closed; the request is untouched then.
  bool Push(QueuePlaces& places, std::unique_ptr<Request>& request);

  struct Pulled {
    std::unique_ptr<Request> request;  // null: nothing to start now
    uint64_t version = 0;              // for WaitForChange
    absl::Time next_deadline;          // of those that wait; the next pull ought to come no later
  };
  // Offers requests in their order until one is taken; its prompt is charged. `judge` is called under the queue's lock
  // and must not call back. Requests that were cancelled or whose deadline has passed end here.
  Pulled Pull(absl::FunctionRef<Verdict(const Request&)> judge);
  // Back to its place, with what it has so far; not charged again. Ends it if nobody waits for it any more.
  void GiveBack(std::unique_ptr<Request> request);

  // What pulled requests did.
  void ChargeCached(const Request& request, int64_t tokens);    // so many of its prompt were not computed
  void ChargeDrawn(absl::Span<const Request* const> requests);  // each has drawn a token
  void Leave(TenantAccount& account);                           // one runs no more, and does not come back

  // Takes a waiting request out and finishes its sink as cancelled. False: it isn't waiting (any more).
  bool Cancel(int64_t request_id);
  // No replica is left: what waits, and what is still given back, ends in `status`. Closes.
  void Fail(const absl::Status& status);

  // Blocks until something may be pulled that couldn't be at `version`, or the queue may have become empty, or `until`.
  void WaitForChange(uint64_t version, absl::Time until);
  // Ends the waits there are, because something else has changed that a waiter looks at.
  void Wake();
  uint64_t version() const;

  // No new work from now on; what waits may still be pulled, and what runs be given back.
  void Close();
  bool closed() const;
  bool drained() const;  // closed, and nothing waits or runs: no replica will get anything any more

  int size() const { return num_waiting_; }  // takes no lock
  QueueStats stats() const;
  size_t num_accounts() const;   // of tenants that are remembered
  void CheckInvariants() const;  // aborts the process on a violation; O(requests)

  // Replicas tell here how fast they are, and how many of them live.
  ServiceRate& service_rate() { return service_rate_; }
  void SetNumReplicas(int count) { num_replicas_ = count; }

 private:
  friend class QueuePlaces;
  using Judge = absl::FunctionRef<Verdict(const Request&)>;
  using Ended = std::vector<std::pair<std::unique_ptr<Request>, FinishEvent>>;
  struct Offer {
    std::unique_ptr<Request> taken;
    bool blocked = false;
  };

  TenantAccount& AccountOf(const std::string& tenant) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<Refusal> WhyNot(TenantAccount& account, int64_t count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<Refusal> TooSlow(const TenantAccount& account, Priority priority, int64_t prompt_tokens) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReturnPlaces(TenantAccount& account, int64_t count);
  void Insert(std::unique_ptr<Request> request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<Request> Remove(TenantAccount& account, Priority priority, size_t index)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<Request> Remove(int64_t request_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndOverdue(Ended& ended) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  TenantAccount* NextTenant(Priority priority, absl::Span<TenantAccount* const> passed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Offer OfferFrom(TenantAccount& account, Priority priority, Judge judge, Ended& ended)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Offer OfferAll(Judge judge, Ended& ended) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<Request> Take(TenantAccount& account, Priority priority, size_t index)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Charge(TenantAccount& account, Priority priority, double price) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  double CounterOfOthers(const TenantAccount& account, Priority priority) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LiftToOthers(TenantAccount& account, Priority priority) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LiftHeldBack(TenantAccount& account) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  double IdleCounter(Priority priority) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  double PromptPrice(const Request& request) const;

  const FairQueueOptions options_;
  const Clock& clock_;
  ServiceRate service_rate_;
  std::atomic<int> num_replicas_ = 1;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const TenantPolicies> policies_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, std::unique_ptr<TenantAccount>> accounts_ ABSL_GUARDED_BY(mutex_);
  static constexpr size_t kMinAccounts = 64;
  size_t num_kept_accounts_ ABSL_GUARDED_BY(mutex_) = kMinAccounts;  // after the idle were last forgotten
  // Tenants with something waiting, by class; in no order.
  std::array<std::vector<TenantAccount*>, kNumPriorities> waiting_tenants_ ABSL_GUARDED_BY(mutex_);
  std::vector<Request*> too_large_ ABSL_GUARDED_BY(mutex_);  // of this pull, so far
  struct Ticket {
    TenantAccount* account = nullptr;
    Priority priority = Priority::kNormal;
  };
  absl::flat_hash_map<int64_t, Ticket> tickets_ ABSL_GUARDED_BY(mutex_);  // of each waiting request
  // Of the waiting requests that have one, with their ids: it ends them wherever they stand.
  absl::btree_set<std::pair<absl::Time, int64_t>> deadlines_ ABSL_GUARDED_BY(mutex_);
  std::atomic<int> num_waiting_ = 0;  // written under mutex_; read without it, by metrics
  int64_t num_reserved_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_running_ ABSL_GUARDED_BY(mutex_) = 0;
  // By class.
  std::array<double, kNumPriorities> pulled_counters_ ABSL_GUARDED_BY(mutex_){};  // the most of a tenant pulled from
  std::array<double, kNumPriorities> most_counters_ ABSL_GUARDED_BY(mutex_){};    // of all
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 0;  // grows with everything that may let a replica start more
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);  // not OK: no replica is left
};

}  // namespace weft
