// THE MAIN LOOP: one thread, one Scheduler, one Engine.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "scheduler/clock.h"
#include "scheduler/fair_queue.h"
#include "scheduler/scheduler.h"
#include "scheduler/stats.h"

namespace weft {

// Pulls requests from the fair queue and runs them until the queue is closed and everything accepted has finished.
//
// Start and Join are for one thread at a time; stats and status for any.
class Replica {
 public:
  // The queue and the clock outlive the replica.
  Replica(std::unique_ptr<Engine> engine, FairQueue& queue, const Clock& clock);
  ~Replica();  // joins: close the queue first

  void Start();
  void Join();

  Stats stats() const;          // as of the last step
  absl::Status status() const;  // not OK: the engine died, and what this replica ran has ended in that error
  const EngineLimits& limits() const { return limits_; }

 private:
  void Run();
  bool AdmitArrivals();
  void Commit(absl::StatusOr<StepResult> result);
  void Publish(std::vector<Event> events);

  const EngineLimits limits_;
  std::unique_ptr<Engine> engine_;  // used by the replica's thread only, as is scheduler_
  FairQueue& queue_;
  Scheduler scheduler_;
  std::thread thread_;

  mutable absl::Mutex mutex_;  // held only to copy
  Stats stats_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
