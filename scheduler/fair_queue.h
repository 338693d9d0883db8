// The one queue of all tenants, weighted fair by tokens of service.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/request.h"

namespace weft {

struct FairQueueOptions {
  int max_requests = 1024;          // waiting; one more is refused
  double output_token_price = 2.0;  // in prompt tokens: a drawn token costs a whole step of its row
  double cached_token_price = 0.1;  // of a prompt, where it was not computed but taken up
  double scored_token_price = 8.0;  // of a prompt that is scored: few fit a step, and each takes the output head
};

// Orders requests among tenants by a virtual token counter (VTC, arXiv 2401.00588): the tenant served least comes
// first; a tenant that was idle is lifted to the least counter of those that wait, so that idling earns no credit.
// Within a tenant: first come, first served.
//
// Thread-safe. Front ends push and cancel; replicas pop and charge.
class FairQueue {
 public:
  explicit FairQueue(const FairQueueOptions& options) : options_(options) {}

  // Errors: ResourceExhausted when full, Unavailable once closed. The request is untouched then.
  absl::Status Push(std::unique_ptr<Request>& request);

  // The next request, or null. Its prompt is charged to its tenant.
  std::unique_ptr<Request> TryPop();

  // Gives back what TryPop charged too much for `tokens` of a prompt that were taken up from the prefix cache.
  void RefundCached(const std::string& tenant, int64_t tokens);

  // Charges `tokens` drawn tokens to the tenant.
  void ChargeOutput(const std::string& tenant, int64_t tokens);

  // Takes a waiting request out and finishes its sink as cancelled. False: it isn't waiting (any more).
  bool Cancel(int64_t request_id);

  // Blocks until a request waits or the queue is closed.
  void WaitForWork();

  // No new work from now on; what waits may still be popped.
  void Close();

  bool closed() const;
  int size() const { return num_waiting_; }  // takes no lock

 private:
  struct Tenant {
    std::deque<std::unique_ptr<Request>> waiting;
    double counter = 0;  // service received so far, in prompt tokens
  };

  bool HasWorkOrClosed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_waiting_ > 0 || closed_; }
  double PromptPrice(const Request& request) const;
  double LeastWaitingCounter() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const FairQueueOptions options_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Tenant> tenants_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<int64_t, std::string> tenant_of_ ABSL_GUARDED_BY(mutex_);  // of each waiting request
  std::atomic<int> num_waiting_ = 0;                        // written under mutex_; read without it, by metrics
  double last_popped_counter_ ABSL_GUARDED_BY(mutex_) = 0;  // where a tenant starts when nobody waits
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace weft
