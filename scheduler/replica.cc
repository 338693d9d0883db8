#include "scheduler/replica.h"

#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "kernels/check.h"

namespace weft {

Replica::Replica(std::unique_ptr<Engine> engine, FairQueue& queue, const Clock& clock)
    : limits_(engine->limits()), engine_(std::move(engine)), queue_(queue), scheduler_(limits_, clock) {
  stats_ = scheduler_.stats();
}

Replica::~Replica() { Join(); }

void Replica::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Replica::Join() {
  if (thread_.joinable()) thread_.join();
}

void Replica::Run() {
  while (AdmitArrivals()) {
    while (engine_->HasRoom()) {
      Batch batch = scheduler_.Schedule();
      if (batch.empty()) break;
      engine_->Submit(std::move(batch));
    }
    CHECK(engine_->HasInFlight() || !scheduler_.HasWork(), "waiting work can always make progress");
    if (engine_->HasInFlight()) Commit(engine_->Collect());
    Publish(scheduler_.TakeEvents());
  }
}

// Takes on what can start at the next step; blocks only when there is nothing to do. False: drained, or the engine
// died.
bool Replica::AdmitArrivals() {
  if (!status().ok()) return false;
  if (!scheduler_.HasWork() && !engine_->HasInFlight()) queue_.WaitForWork();
  while (scheduler_.WantsMore()) {
    std::unique_ptr<Request> request = queue_.TryPop();
    if (request == nullptr) break;
    scheduler_.Add(std::move(request));
  }
  return scheduler_.HasWork() || engine_->HasInFlight() || !queue_.closed();
}

void Replica::Commit(absl::StatusOr<StepResult> result) {
  if (result.ok()) {
    scheduler_.Commit(*result);
    return;
  }
  scheduler_.Abort(result.status());
  absl::MutexLock lock(&mutex_);
  status_ = result.status();
}

void Replica::Publish(std::vector<Event> events) {
  absl::flat_hash_map<std::string, int64_t> drawn;
  for (const Event& event : events) {
    if (event.num_cached_tokens.has_value()) {
      event.sink->Start(*event.num_cached_tokens);
      if (*event.num_cached_tokens > 0) queue_.RefundCached(event.tenant, *event.num_cached_tokens);
    } else if (event.token.has_value()) {
      event.sink->Push(*event.token);
      if (!event.token->in_prompt) ++drawn[event.tenant];
    } else {
      event.sink->Finish(*event.finish);
    }
  }
  for (const auto& [tenant, tokens] : drawn) queue_.ChargeOutput(tenant, tokens);
  const Stats stats = scheduler_.stats();
  absl::MutexLock lock(&mutex_);
  stats_ = stats;
}

Stats Replica::stats() const {
  absl::MutexLock lock(&mutex_);
  return stats_;
}

absl::Status Replica::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

}  // namespace weft
