#include "scheduler/fair_queue.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace weft {

absl::Status FairQueue::Push(std::unique_ptr<Request>& request) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return absl::UnavailableError("the server is shutting down");
  if (num_waiting_ >= options_.max_requests) return absl::ResourceExhaustedError("the queue is full");
  Tenant& tenant = tenants_[request->tenant];
  if (tenant.waiting.empty()) tenant.counter = std::max(tenant.counter, LeastWaitingCounter());
  tenant_of_[request->id] = request->tenant;
  tenant.waiting.push_back(std::move(request));
  ++num_waiting_;
  return absl::OkStatus();
}

double FairQueue::LeastWaitingCounter() const {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [name, tenant] : tenants_) {
    if (!tenant.waiting.empty()) least = std::min(least, tenant.counter);
  }
  return num_waiting_ == 0 ? last_popped_counter_ : least;
}

std::unique_ptr<Request> FairQueue::TryPop() {
  absl::MutexLock lock(&mutex_);
  Tenant* next = nullptr;
  for (auto& [name, tenant] : tenants_) {
    if (tenant.waiting.empty()) continue;
    const bool earlier = next == nullptr || tenant.counter < next->counter ||
                         (tenant.counter == next->counter && tenant.waiting.front()->id < next->waiting.front()->id);
    if (earlier) next = &tenant;
  }
  if (next == nullptr) return nullptr;
  std::unique_ptr<Request> request = std::move(next->waiting.front());
  next->waiting.pop_front();
  --num_waiting_;
  tenant_of_.erase(request->id);
  last_popped_counter_ = next->counter;
  next->counter += PromptPrice(*request);
  return request;
}

double FairQueue::PromptPrice(const Request& request) const {
  const double token_price = request.sampling.score_prompt ? options_.scored_token_price : 1.0;
  return token_price * static_cast<double>(request.prompt.size());
}

void FairQueue::RefundCached(const std::string& tenant, int64_t tokens) {
  absl::MutexLock lock(&mutex_);
  tenants_[tenant].counter -= (1.0 - options_.cached_token_price) * static_cast<double>(tokens);
}

void FairQueue::ChargeOutput(const std::string& tenant, int64_t tokens) {
  absl::MutexLock lock(&mutex_);
  tenants_[tenant].counter += options_.output_token_price * static_cast<double>(tokens);
}

bool FairQueue::Cancel(int64_t request_id) {
  std::unique_ptr<Request> request;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = tenant_of_.find(request_id);
    if (found == tenant_of_.end()) return false;
    std::deque<std::unique_ptr<Request>>& waiting = tenants_[found->second].waiting;
    const auto it = std::find_if(waiting.begin(), waiting.end(),
                                 [request_id](const auto& candidate) { return candidate->id == request_id; });
    request = std::move(*it);
    waiting.erase(it);
    tenant_of_.erase(found);
    --num_waiting_;
  }
  request->sink->Finish({FinishReason::kCancelled, std::nullopt, absl::OkStatus()});
  return true;
}

void FairQueue::WaitForWork() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &FairQueue::HasWorkOrClosed));
}

void FairQueue::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

bool FairQueue::closed() const {
  absl::MutexLock lock(&mutex_);
  return closed_;
}

}  // namespace weft
