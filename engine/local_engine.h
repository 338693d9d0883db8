// Engines whose ranks are threads of this process.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/engine_setup.h"
#include "engine/model_config.h"
#include "engine/step_trace.h"
#include "engine/weights.h"
#include "engine/worker.h"

namespace weft {

// A model that is loaded once, and opens an engine for each data-parallel replica, again where one has died.
//
// Engines share the weights; the device's threads are divided among the ranks of all replicas, one each at least; each
// engine has a KV cache of its own, of kv_cache_bytes.
class LocalEngines final : public EngineSource {
 public:
  // `num_replicas`: how many engines are open at once, >= 1. Errors: InvalidArgument for a bad model directory or
  // options that contradict each other, ResourceExhausted when memory doesn't suffice.
  static absl::StatusOr<std::unique_ptr<LocalEngines>> Load(const ModelConfig& config, const EngineSetup& setup,
                                                            int num_replicas);

  absl::StatusOr<std::unique_ptr<Engine>> Open(int replica) override;
  const EngineLimits& limits() const override { return limits_; }
  void Cancel() override {}                           // nothing here waits
  void SetOnDeath(std::function<void()>) override {}  // these die in steps alone

  // The engines opened from now on keep a trace of their steps, which outlives them.
  void TraceSteps(StepTrace* trace) { trace_ = trace; }

 private:
  using SharedWeights = std::shared_ptr<const ModelWeights>;

  LocalEngines(const ModelConfig& config, const EngineSetup& setup, std::vector<ParallelPlan> plans,
               const EngineLimits& limits)
      : config_(config), setup_(setup), plans_(std::move(plans)), limits_(limits) {}
  static absl::StatusOr<std::vector<SharedWeights>> LoadWeights(const ModelConfig& config, const EngineSetup& setup,
                                                                const std::vector<ParallelPlan>& plans);

  const ModelConfig config_;
  const EngineSetup setup_;  // its device's threads are those of one rank
  const std::vector<ParallelPlan> plans_;
  const EngineLimits limits_;
  std::vector<SharedWeights> weights_;  // by rank
  StepTrace* trace_ = nullptr;
};

// An engine of ranks that are made already, of all of a replica. A step that takes longer than `step_timeout`, and many
// times as long as others, ends it, with an error that tells what each rank does and waits for.
std::unique_ptr<Engine> MakeLocalEngine(const EngineLimits& limits, std::vector<WorkerParts> ranks,
                                        absl::Duration step_timeout = absl::InfiniteDuration());

}  // namespace weft
