// One device's share of an engine: a thread that takes batches, runs the model and samples.
#pragma once

#include "absl/status/statusor.h"
#include "engine/batch.h"
#include "engine/channel.h"
#include "engine/kv_cache.h"
#include "engine/model.h"
#include "engine/sampler.h"
#include "engine/step_input.h"
#include "kernels/backend.h"

namespace weft {

// Everything one worker computes with; made on one thread, then used by the worker's only.
struct WorkerParts {
  Backend& backend;
  Model model;
  KvCache kv_cache;
  StepInput input;
  Sampler sampler;
};

class Worker {
 public:
  // The channels outlive the worker.
  Worker(WorkerParts parts, Channel<Batch>& inbox, Channel<absl::StatusOr<StepResult>>& results)
      : parts_(std::move(parts)), inbox_(inbox), results_(results) {}

  // Serves until the inbox is closed.
  void Run();

 private:
  absl::StatusOr<StepResult> Step(Batch& batch);

  WorkerParts parts_;
  Channel<Batch>& inbox_;
  Channel<absl::StatusOr<StepResult>>& results_;
};

}  // namespace weft
