#include "scheduler/replica.h"

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/check.h"

namespace weft {
namespace {

// Adds what it took to a sum, also where the scope is left early.
class Stopwatch {
 public:
  Stopwatch(const Clock& clock, absl::Duration& sum) : clock_(clock), sum_(sum), begin_(clock.Now()) {}
  ~Stopwatch() { sum_ += std::max(clock_.Now() - begin_, absl::ZeroDuration()); }

 private:
  const Clock& clock_;
  absl::Duration& sum_;
  const absl::Time begin_;
};

}  // namespace

Replica::Replica(int id, std::unique_ptr<Engine> engine, const SchedulerOptions& options, Dispatcher& dispatcher,
                 const Clock& clock)
    : id_(id),
      limits_(engine->limits()),
      engine_(std::move(engine)),
      dispatcher_(dispatcher),
      clock_(clock),
      scheduler_(limits_, options, clock) {
  stats_ = scheduler_.stats();
}

Replica::~Replica() { Join(); }

void Replica::Start(Reopen reopen) {
  thread_ = std::thread([this, reopen = std::move(reopen)] { Run(reopen); });
}

void Replica::Join() {
  if (thread_.joinable()) thread_.join();
}

void Replica::Run(const Reopen& reopen) {
  do {
    while (AdmitArrivals()) {
      SubmitSteps();
      if (engine_->HasInFlight()) FinishStep();
      Publish();
    }
  } while (GoOn(reopen));
}

// With another engine, after the last one died.
bool Replica::GoOn(const Reopen& reopen) {
  const absl::Status death = status();
  if (death.ok() || reopen == nullptr) return false;
  absl::StatusOr<std::unique_ptr<Engine>> engine = reopen(death, TakeEngine());
  if (!engine.ok()) return false;
  Revive(*std::move(engine));
  return true;
}

void Replica::Revive(std::unique_ptr<Engine> engine) {
  CHECK(engine->limits() == limits_, "a replica's engines are alike");
  {
    absl::MutexLock lock(&engine_mutex_);
    engine_.swap(engine);
  }
  absl::MutexLock lock(&mutex_);
  status_ = absl::OkStatus();
}

// Destroying it takes time, which nobody who asks for stats shall wait for.
std::unique_ptr<Engine> Replica::TakeEngine() {
  absl::MutexLock lock(&engine_mutex_);
  return std::move(engine_);
}

// Takes on what can start at the next step; waits only when there is nothing to do. False: drained, or the engine died.
bool Replica::AdmitArrivals() {
  if (!status().ok()) return false;
  while (true) {
    // First, so that nobody is taken on by an engine that died while it had nothing to do.
    if (const absl::Status death = engine_->status(); !death.ok() && !HasWork()) {
      if (!dispatcher_.queue().drained()) Die(death);
      return false;
    }
    PullWork();
    if (HasWork()) return true;
    if (dispatcher_.queue().drained()) return false;
    dispatcher_.queue().WaitForChange(queue_version_, look_again_);
  }
}

void Replica::PullWork() {
  const Stopwatch stopwatch(clock_, host_time_);
  while (true) {
    Dispatcher::Pulled pulled = dispatcher_.Pull(id_, scheduler_);
    queue_version_ = pulled.version;
    look_again_ = pulled.look_again;
    if (pulled.request == nullptr) break;
    scheduler_.Add(std::move(pulled.request));
  }
  if (!HasWork()) dispatcher_.queue().service_rate().ObserveIdle(id_);
}

// Keeps every pipeline stage busy, and one step ahead.
void Replica::SubmitSteps() {
  const Stopwatch stopwatch(clock_, host_time_);
  while (engine_->HasRoom()) {
    const Batch& batch = scheduler_.Schedule();
    if (batch.empty()) break;
    engine_->Submit(batch);
  }
}

void Replica::FinishStep() {
  const absl::StatusOr<StepResult> result = engine_->Collect();
  if (!result.ok()) return Die(result.status());
  const Stopwatch stopwatch(clock_, host_time_);
  const absl::StatusOr<ServiceRate::Step> did = scheduler_.Commit(*result);
  if (!did.ok()) return Die(did.status());
  dispatcher_.queue().service_rate().Observe(id_, *did);
}

// What was told before the death is told first.
void Replica::Die(const absl::Status& status) {
  std::vector<Scheduler::Survivor> survivors = scheduler_.Abort();
  Publish();
  {
    absl::MutexLock lock(&mutex_);
    status_ = status;
  }
  dispatcher_.GiveBackFromDead(id_, std::move(survivors), /*from_outside=*/absl::IsUnavailable(status));
}

// Charges come first: once a tenant's last request has left, its account may be gone.
void Replica::Publish() {
  drawn_.clear();
  for (const Event& event : scheduler_.events()) {
    const auto* token = std::get_if<SampledToken>(&event.what);
    if (token != nullptr && !token->in_prompt) drawn_.push_back(event.request);
  }
  if (!drawn_.empty()) dispatcher_.queue().ChargeDrawn(drawn_);
  for (const Event& event : scheduler_.events()) Tell(event);
  scheduler_.ClearEvents();
  for (std::unique_ptr<Request>& request : scheduler_.TakePreempted()) {
    dispatcher_.queue().GiveBack(std::move(request));
  }
  if (dispatcher_.tracks_prefixes()) dispatcher_.TellCache(id_, scheduler_.TakeCacheChanges());
  scheduler_seconds_.Observe(absl::ToDoubleSeconds(std::exchange(host_time_, absl::ZeroDuration())));
  Stats stats = scheduler_.stats();
  stats.scheduler_seconds = scheduler_seconds_;
  absl::MutexLock lock(&mutex_);
  stats_ = stats;
}

void Replica::Tell(const Event& event) {
  const Request& request = *event.request;
  FairQueue& queue = dispatcher_.queue();
  if (const auto* started = std::get_if<Event::Started>(&event.what)) {
    request.sink->Start(started->num_cached_tokens);
    if (started->num_cached_tokens > 0) queue.ChargeCached(request, started->num_cached_tokens);
  } else if (const auto* token = std::get_if<SampledToken>(&event.what)) {
    request.sink->Push(*token);
  } else {
    queue.Leave(*request.account);
    request.sink->Finish(std::get<FinishEvent>(event.what));
  }
}

Stats Replica::stats() const {
  absl::MutexLock lock(&mutex_);
  return stats_;
}

EngineStats Replica::engine_stats() const {
  absl::MutexLock lock(&engine_mutex_);
  return engine_ == nullptr ? EngineStats() : engine_->stats();
}

absl::Status Replica::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

}  // namespace weft
