// The data-parallel replicas of a server: started together, each started again when its engine dies, ended together.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "scheduler/clock.h"
#include "scheduler/dispatcher.h"
#include "scheduler/replica.h"
#include "server/engine_keeper.h"
#include "server/scheduler_metrics.h"

namespace weft {

class ReplicaSet {
 public:
  // How many are in which state. A change of one comes with why it died, unless it is up again.
  struct Change {
    int replica = 0;
    ReplicaState state = ReplicaState::kUp;
    absl::Status why;
  };
  struct Parts {
    EngineSource& source;
    Dispatcher& dispatcher;
    const Clock& clock;
  };

  // Parts outlive the set. `on_change` is called on a replica's thread.
  ReplicaSet(std::vector<std::unique_ptr<Engine>> engines, const SchedulerOptions& options,
             const RestartOptions& restarts, const Parts& parts, std::function<void(const Change&)> on_change);
  ~ReplicaSet();  // ends them

  // Closes the queue, and waits until the replicas have finished what was accepted; none is started again. Once.
  void End();

  size_t size() const { return replicas_.size(); }
  int NumIn(ReplicaState state) const;
  std::vector<SchedulerSnapshot::Replica> Snapshot() const;

 private:
  FairQueue& queue_;
  EngineSource& source_;
  EngineKeeper keeper_;
  std::vector<std::unique_ptr<Replica>> replicas_;  // by id
};

}  // namespace weft
