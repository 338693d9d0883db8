// THE MAIN LOOP: one thread, one Scheduler, one Engine.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "scheduler/clock.h"
#include "scheduler/dispatcher.h"
#include "scheduler/scheduler.h"
#include "scheduler/stats.h"

namespace weft {

// Pulls requests through the dispatcher and runs them until the queue is closed and everything accepted has finished,
// here or on other replicas. When its engine dies, its requests go back to the queue, and it goes on with another
// engine, or ends where there is none.
//
// Start and Join are for one thread at a time; stats, engine_stats and status for any.
class Replica {
 public:
  // The engine died of this, and is to be destroyed: another with the same limits, or an error, and the replica ends.
  // Called on the replica's thread; takes its time.
  using Reopen =
      std::function<absl::StatusOr<std::unique_ptr<Engine>>(const absl::Status& death, std::unique_ptr<Engine> dead)>;

  // Dispatcher and clock outlive the replica. `id`: 0 .. num_replicas - 1.
  Replica(int id, std::unique_ptr<Engine> engine, const SchedulerOptions& options, Dispatcher& dispatcher,
          const Clock& clock);
  ~Replica();  // joins: close the queue first

  void Start(Reopen reopen = nullptr);  // null: it ends with its engine
  void Join();

  Stats stats() const;               // as of the last step
  EngineStats engine_stats() const;  // as of now; empty while there is none
  absl::Status status() const;       // not OK: the engine died, and no other has come yet
  const EngineLimits& limits() const { return limits_; }

  // The parts of the loop, for a simulator, which has no threads. None of them waits, but FinishStep for the engine.
  void PullWork();
  void SubmitSteps();
  void FinishStep();  // requires HasInFlight
  void Publish();
  void Revive(std::unique_ptr<Engine> engine);  // requires a dead one
  bool HasInFlight() const { return engine_->HasInFlight(); }
  bool HasWork() const { return scheduler_.HasWork() || engine_->HasInFlight(); }
  bool HasNews() const { return dispatcher_.queue().version() != queue_version_; }  // PullWork may find more
  absl::Time look_again() const { return look_again_; }  // when PullWork may find more although nothing changed
  const Scheduler& scheduler() const { return scheduler_; }

 private:
  void Run(const Reopen& reopen);
  bool GoOn(const Reopen& reopen);
  std::unique_ptr<Engine> TakeEngine();
  bool AdmitArrivals();
  void Die(const absl::Status& status);
  void Tell(const Event& event);

  const int id_;
  const EngineLimits limits_;
  mutable absl::Mutex engine_mutex_;  // held by the replica's thread to change which engine it is, by others to use it
  std::unique_ptr<Engine> engine_;    // used by the replica's thread only, but for its stats, as is all that follows
  Dispatcher& dispatcher_;
  const Clock& clock_;
  Scheduler scheduler_;
  uint64_t queue_version_ = 0;  // at the last pull
  absl::Time look_again_ = absl::InfiniteFuture();
  std::vector<const Request*> drawn_;  // of each token that is published; kept for its memory
  absl::Duration host_time_;           // of the scheduler, since the last step
  FixedHistogram<12> scheduler_seconds_{kHostTimeBounds};
  std::thread thread_;

  mutable absl::Mutex mutex_;  // held only to copy
  Stats stats_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
