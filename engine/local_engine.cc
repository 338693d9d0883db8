#include "engine/local_engine.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "engine/batch.h"
#include "engine/channel.h"
#include "engine/parallel_plan.h"
#include "engine/rank_parts.h"
#include "engine/rank_threads.h"
#include "engine/shared_stopwatch.h"
#include "engine/step_deadline.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

class LocalEngine final : public Engine {
 public:
  LocalEngine(const EngineLimits& limits, std::vector<WorkerParts> ranks, absl::Duration step_timeout)
      : limits_(limits),
        deadline_(step_timeout),
        ranks_(std::move(ranks), [this](size_t, const Worker& worker, absl::StatusOr<StepResult> result) {
          if (!result.ok()) return results_.Push(Named(result.status(), worker));
          if (worker.IsReporter()) results_.Push(std::move(result));
        }) {}

  const EngineLimits& limits() const override { return limits_; }
  bool HasRoom() const override { return static_cast<int>(in_flight_.size()) < 2 * limits_.num_stages; }
  bool HasInFlight() const override { return !in_flight_.empty(); }
  absl::Status status() const override { return error_; }

  void Submit(const Batch& batch) override {
    CHECK(HasRoom(), "Submit requires room");
    if (in_flight_.empty()) {
      since_ = absl::Now();
      with_work_.Start();
    }
    in_flight_.push_back({batch.step, batch.num_tokens()});
    ranks_.Push(batch);
  }

  absl::StatusOr<StepResult> Collect() override {
    CHECK(HasInFlight(), "Collect requires a step in flight");
    if (!error_.ok()) return error_;
    absl::StatusOr<StepResult> result = Await(in_flight_.front());
    error_ = result.status();
    const absl::Time now = absl::Now();
    deadline_.Observe(now - std::exchange(since_, now), in_flight_.front().num_tokens);
    in_flight_.pop_front();
    if (in_flight_.empty()) with_work_.Stop();
    return result;
  }

  EngineStats stats() const override {
    EngineStats stats{.with_work = with_work_.Total()};
    for (size_t rank = 0; rank < ranks_.size(); ++rank) stats.ranks.push_back(ranks_.worker(rank).stats());
    return stats;
  }

 private:
  struct InFlight {
    int64_t step = 0;
    int num_tokens = 0;
  };

  static absl::Status Named(const absl::Status& status, const Worker& worker) {
    return absl::Status(status.code(), absl::StrCat("rank ", worker.rank(), " in step ", worker.activity().step, ": ",
                                                    status.message()));
  }

  // A rank that waits for others ends when its groups are aborted; one that computes for ever can't be ended, and
  // whoever destroys the engine waits for it.
  absl::StatusOr<StepResult> Await(const InFlight& oldest) {
    const absl::Duration allowed = deadline_.Allowed(oldest.num_tokens);
    std::optional<absl::StatusOr<StepResult>> result = results_.PopBefore(since_ + allowed);
    if (!result.has_value()) result = results_.PopBefore(absl::Now() + StepDeadline::Grace(allowed));
    if (result.has_value()) return *std::move(result);
    const absl::Status hung = absl::InternalError(absl::StrFormat("step %d has taken more than %.1f s: %s", oldest.step,
                                                                  absl::ToDoubleSeconds(allowed), DescribeRanks()));
    ranks_.Abort(hung);
    return hung;
  }

  std::string DescribeRanks() const {
    std::vector<std::string> lines;
    for (size_t rank = 0; rank < ranks_.size(); ++rank) lines.push_back(Describe(ranks_.worker(rank).activity()));
    return absl::StrJoin(lines, "; ");
  }

  const EngineLimits limits_;
  StepDeadline deadline_;
  std::deque<InFlight> in_flight_;  // oldest first
  absl::Time since_;                // the oldest has been the oldest
  Channel<absl::StatusOr<StepResult>> results_;
  SharedStopwatch with_work_;
  absl::Status error_;
  RankThreads ranks_;  // last: its threads use the rest
};

}  // namespace

std::unique_ptr<Engine> MakeLocalEngine(const EngineLimits& limits, std::vector<WorkerParts> ranks,
                                        absl::Duration step_timeout) {
  return std::make_unique<LocalEngine>(limits, std::move(ranks), step_timeout);
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
  ASSIGN_OR_RETURN(std::vector<RankCommunicators> communicators, OpenCommunicators(setup_.parallel));
  std::vector<WorkerParts> ranks;
  for (size_t rank = 0; rank < plans_.size(); ++rank) {
    ASSIGN_OR_RETURN(WorkerParts parts, MakeWorkerParts(config_, setup_, limits_, plans_[rank], weights_[rank],
                                                        std::move(communicators[rank])));
    parts.trace = trace_;
    ranks.push_back(std::move(parts));
  }
  return MakeLocalEngine(limits_, std::move(ranks), setup_.step_timeout);
}

}  // namespace weft
