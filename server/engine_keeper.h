// Opens the engines of a server's replicas: all at start, and one again where it has died.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "scheduler/clock.h"
#include "server/restart_policy.h"

namespace weft {

// All at once, and warm: each has computed a step, which touches every weight and shows whether the model computes
// numbers at all. The first error of any.
absl::StatusOr<std::vector<std::unique_ptr<Engine>>> OpenWarmEngines(EngineSource& source, int num_replicas);

enum class ReplicaState {
  kUp,
  kRestarting,  // its engine died, and another is on its way
  kDown,        // for good: it died too often
};

class EngineKeeper {
 public:
  // Called on the replica's thread when its state changes; `why`: how it died, unless it is up.
  using OnChange = std::function<void(int replica, ReplicaState state, const absl::Status& why)>;

  // Source and clock outlive the keeper. The replicas are up.
  EngineKeeper(EngineSource& source, int num_replicas, const RestartOptions& options, const Clock& clock,
               OnChange on_change);

  // Another engine for a replica whose engine died. Takes as long as it takes; an error is final. Called by one thread
  // for each replica.
  absl::StatusOr<std::unique_ptr<Engine>> Reopen(int replica, absl::Status death, std::unique_ptr<Engine> dead);

  // Ends every Reopen, soon, with an error. Thread-safe; once is enough.
  void Stop();

  struct Status {
    ReplicaState state = ReplicaState::kUp;
    int64_t num_restarts = 0;  // tried
  };
  Status status(int replica) const;
  size_t size() const { return size_; }

 private:
  struct Replica {
    RestartPolicy policy;
    Status status;
  };

  void Change(int replica, ReplicaState state, const absl::Status& why);
  bool WaitUnlessStopped(absl::Duration delay);

  EngineSource& source_;
  const size_t size_;
  const Clock& clock_;
  const OnChange on_change_;
  mutable absl::Mutex mutex_;
  std::vector<Replica> replicas_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace weft
