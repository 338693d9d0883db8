// Engines whose ranks are processes, here or on other hosts.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/engine_setup.h"
#include "engine/remote/child_process.h"
#include "engine/remote/coordinator.h"
#include "engine/remote/placement.h"
#include "engine/remote/worker_group.h"

namespace weft {

struct RemoteOptions {
  int num_replicas = 1;
  int num_nodes = 1;  // hosts of each replica, this one among them
  CoordinatorOptions coordinator;
  std::string address;                   // of this host, as the others reach it
  std::vector<std::string> command;      // that starts a worker here; it gets "--coordinator ADDRESS" besides
  std::vector<std::string> environment;  // of the workers here, "NAME=value"
  absl::Duration join_timeout = absl::Minutes(10);
  absl::Duration step_timeout = absl::Seconds(5);  // least; a step that takes 20 times as long as others is hung, too
};

class RemoteEngines final : public EngineSource {
 public:
  // setup.weights.observer is told how each replica's first opening goes, and must live as long as that.
  // Errors: InvalidArgument for sizes that don't fit the model or the hosts, certificates, addresses.
  static absl::StatusOr<std::unique_ptr<RemoteEngines>> Start(const ModelConfig& config, const EngineSetup& setup,
                                                              const RemoteOptions& options);
  ~RemoteEngines() override;  // after the engines

  // Starts the replica's workers, and lets them load the model. Error of workers that have loaded other weights than
  // those of another replica: DataLoss that names the tensor.
  absl::StatusOr<std::unique_ptr<Engine>> Open(int replica) override;
  const EngineLimits& limits() const override { return limits_; }
  void Cancel() override;
  void SetOnDeath(std::function<void()> on_death) override;

  // Of the port for other hosts, 0: none.
  int port() const { return coordinator_->port(); }

 private:
  RemoteEngines(const ModelConfig& config, const EngineSetup& setup, const RemoteOptions& options);
  absl::Status CheckDigests(const WorkerGroup& group);
  void OnEnd();
  void OnProgress(int replica, double loaded);

  const ModelConfig config_;
  const EngineSetup setup_;
  const RemoteOptions options_;
  std::vector<ParallelPlan> plans_;
  std::vector<PlacedWorker> placement_;
  std::string config_digest_;
  EngineLimits limits_;
  ChildStarter starter_;
  std::unique_ptr<Coordinator> coordinator_;
  absl::Mutex mutex_;
  std::vector<double> loaded_ ABSL_GUARDED_BY(mutex_);  // by replica, of the first time that it opens
  std::vector<std::weak_ptr<WorkerGroup>> opening_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<WorkerGroup::Digests> digests_ ABSL_GUARDED_BY(mutex_);  // of the first that was loaded, by rank
  std::function<void()> on_death_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
