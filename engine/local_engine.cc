#include "engine/local_engine.h"

#include <algorithm>
#include <utility>

#include "engine/batch.h"
#include "engine/channel.h"
#include "engine/parallel_plan.h"
#include "engine/rank_parts.h"
#include "engine/rank_threads.h"
#include "engine/shared_stopwatch.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

class LocalEngine final : public Engine {
 public:
  LocalEngine(const EngineLimits& limits, std::vector<WorkerParts> ranks)
      : limits_(limits),
        ranks_(std::move(ranks), [this](size_t, const Worker& worker, absl::StatusOr<StepResult> result) {
          if (!result.ok() || worker.IsReporter()) results_.Push(std::move(result));
        }) {}

  const EngineLimits& limits() const override { return limits_; }
  bool HasRoom() const override { return num_in_flight_ < 2 * limits_.num_stages; }
  bool HasInFlight() const override { return num_in_flight_ > 0; }
  absl::Status status() const override { return error_; }

  void Submit(const Batch& batch) override {
    CHECK(HasRoom(), "Submit requires room");
    if (num_in_flight_++ == 0) with_work_.Start();
    ranks_.Push(batch);
  }

  absl::StatusOr<StepResult> Collect() override {
    CHECK(HasInFlight(), "Collect requires a step in flight");
    if (!error_.ok()) return error_;
    absl::StatusOr<StepResult> result = *results_.Pop();
    error_ = result.status();
    if (--num_in_flight_ == 0) with_work_.Stop();
    return result;
  }

  EngineStats stats() const override {
    EngineStats stats{.with_work = with_work_.Total()};
    for (size_t rank = 0; rank < ranks_.size(); ++rank) stats.ranks.push_back(ranks_.worker(rank).stats());
    return stats;
  }

 private:
  const EngineLimits limits_;
  Channel<absl::StatusOr<StepResult>> results_;
  int num_in_flight_ = 0;
  SharedStopwatch with_work_;
  absl::Status error_;
  RankThreads ranks_;  // last: its threads use the rest
};

}  // namespace

std::unique_ptr<Engine> MakeLocalEngine(const EngineLimits& limits, std::vector<WorkerParts> ranks) {
  return std::make_unique<LocalEngine>(limits, std::move(ranks));
}

absl::StatusOr<std::unique_ptr<LocalEngines>> LocalEngines::Load(const ModelConfig& config, const EngineSetup& setup,
                                                                 int num_replicas) {
  ASSIGN_OR_RETURN(std::vector<ParallelPlan> plans, MakePlans(config, setup.parallel));
  ASSIGN_OR_RETURN(const EngineLimits limits, LimitsFor(config, setup, plans));
  ASSIGN_OR_RETURN(std::vector<SharedWeights> weights, LoadWeights(config, setup, plans));
  EngineSetup of_rank = setup;
  of_rank.weights.observer = {};  // they are loaded
  const int num_ranks = num_replicas * static_cast<int>(plans.size());
  of_rank.device.num_threads = std::max(1, NumThreads(setup.device) / num_ranks);
  auto engines = std::unique_ptr<LocalEngines>(new LocalEngines(config, of_rank, std::move(plans), limits));
  engines->weights_ = std::move(weights);
  return engines;
}

// By all threads of the device, whose memory outlives its backend.
absl::StatusOr<std::vector<LocalEngines::SharedWeights>> LocalEngines::LoadWeights(
    const ModelConfig& config, const EngineSetup& setup, const std::vector<ParallelPlan>& plans) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, OpenDevice(setup.device));
  ASSIGN_OR_RETURN(std::vector<ModelWeights> loaded,
                   LoadRankWeights(setup.model_dir, config, plans, setup.weights, *backend));
  std::vector<SharedWeights> ranks;
  for (ModelWeights& weights : loaded) ranks.push_back(std::make_shared<const ModelWeights>(std::move(weights)));
  return ranks;
}

absl::StatusOr<std::unique_ptr<Engine>> LocalEngines::Open(int /*replica*/) {
  ASSIGN_OR_RETURN(std::vector<RankCommunicators> communicators,
                   OpenCommunicators(setup_.device.kind, setup_.parallel));
  std::vector<WorkerParts> ranks;
  for (size_t rank = 0; rank < plans_.size(); ++rank) {
    ASSIGN_OR_RETURN(WorkerParts parts, MakeWorkerParts(config_, setup_, limits_, plans_[rank], weights_[rank],
                                                        std::move(communicators[rank])));
    parts.trace = trace_;
    ranks.push_back(std::move(parts));
  }
  return MakeLocalEngine(limits_, std::move(ranks));
}

}  // namespace weft
