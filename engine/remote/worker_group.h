// The worker processes of one engine, for one life: started together, ended together.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/engine_setup.h"
#include "engine/engine_stats.h"
#include "engine/rank_activity.h"
#include "engine/remote/child_process.h"
#include "engine/remote/coordinator.h"
#include "engine/remote/placement.h"
#include "engine/remote/worker_seat.h"
#include "engine/shared_stopwatch.h"
#include "engine/weight_digest.h"
#include "kernels/device.h"
#include "weft/v1/worker.pb.h"

namespace weft {

// The exit status by which a worker says that it saw its link end (EX_TEMPFAIL), so that nothing it did is to blame.
inline constexpr int kWorkerLinkLost = 75;

// What the groups of a server share; outlives them.
struct WorkerGroupContext {
  const ModelConfig& config;
  const EngineSetup& setup;
  const std::vector<ParallelPlan>& plans;
  const std::vector<PlacedWorker>& placement;
  const std::string& config_digest;
  const std::string& address;  // of this host, for the others; empty: there are none
  int threads_per_rank = 1;    // on this host
  int num_nodes = 1;
  int first_device = 0;              // of the group's ranks on each host, which have devices one after the other
  std::vector<std::string> command;  // that starts a worker here
  std::vector<std::string> environment;
  absl::Duration join_timeout;  // for all to join
  absl::Duration peer_timeout;  // of ranks on different hosts for each other
  Coordinator& coordinator;
  ChildStarter& starter;
};

// Thread-safe.
class WorkerGroup {
 public:
  // `name`: in messages, "replica 0". `on_end`: called once when it fails, on any thread.
  // `on_progress`: called with how much of its weights the group has loaded, 0 to 1; never less than before; may be
  // null.
  WorkerGroup(const WorkerGroupContext& context, const std::string& name, std::function<void()> on_end,
              std::function<void(double loaded)> on_progress);
  ~WorkerGroup();

  // Starts the workers here, waits for those of other hosts, and until all have loaded. What each rank's tensors became
  // is in digests() then.
  absl::Status Load();
  // Lets them meet. Afterwards steps may be sent.
  absl::Status Connect();

  using Digests = std::vector<TensorDigest>;
  std::vector<Digests> digests() const;  // by rank

  // As of when a rank was last heard of, some of a second ago.
  EngineStats stats() const;
  // Runs while steps are under way; for the one who sends them.
  SharedStopwatch& work() { return work_; }

  void Send(const v1::EngineMessage& message);

  // The next result, or why there is none any more. DeadlineExceeded: not by then; nothing has changed.
  absl::StatusOr<v1::StepDone> NextResult(absl::Time deadline);

  // Ends the workers, unless something did already: the first reason stays. Doesn't wait for them.
  void Fail(const absl::Status& status);
  absl::Status status() const;

  // What the workers do and wait for, for whoever wonders why a step takes so long: "rank 1 (process 71) has not been
  // heard of for 5.1 s; rank 0 waits for rank 1 in AllReduceSum 812 ...". Also whether some process is silent.
  struct Diagnosis {
    std::string text;
    bool someone_is_silent = false;
  };
  Diagnosis Diagnose() const;

 private:
  enum class Phase { kExpected, kJoined, kLoaded, kReady };
  struct Worker {
    const PlacedWorker* placed = nullptr;
    std::shared_ptr<WorkerSeat> seat;
    // The rest is written under mutex_.
    std::unique_ptr<ChildProcess> process;  // null: on another host
    Phase phase = Phase::kExpected;
    absl::Time heard;
    double loaded = 0;
    std::vector<RankActivity> activities;
  };

  absl::Status Start();
  absl::Status MakeMemories();
  absl::Status StartProcess(size_t index);
  v1::Assignment AssignmentFor(size_t index) const;
  absl::Status AwaitAll(Phase phase);
  void OnMessage(size_t index, const v1::WorkerMessage& message);
  void OnLinkEnded(size_t index);
  absl::Status Take(Worker& worker, const v1::WorkerMessage& message);
  static absl::Status Advance(Worker& worker, Phase phase);
  void TellProgress(Worker& worker, double loaded) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeHeartbeat(Worker& worker, const v1::Heartbeat& heartbeat) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeDigests(const PlacedWorker& placed, const v1::Loaded& loaded) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // worker_loss.cc
  absl::Status WhyLate(const Worker& worker, absl::Time join_deadline) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WhyLost(size_t index);
  static absl::Status WhyFailed(const PlacedWorker& placed, const v1::Failed& failed);
  std::string NameOf(const Worker& worker) const;
  bool AllAre(Phase phase) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const WorkerGroupContext context_;
  const std::string name_;
  const std::string scope_;
  const std::function<void()> on_end_;
  const std::function<void(double loaded)> on_progress_;
  std::vector<std::unique_ptr<GroupMemory>> tensor_memories_;  // by stage; null where it isn't all on this host
  std::vector<std::unique_ptr<GroupMemory>> stage_memories_;   // by tensor rank; likewise
  std::vector<Worker> workers_;
  mutable absl::Mutex mutex_;
  std::vector<Digests> digests_ ABSL_GUARDED_BY(mutex_);  // by rank
  SharedStopwatch work_;
  EngineStats stats_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::StepDone> results_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
