// One rank of an engine: takes batches, runs its stage of the model, and hands on or samples.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/batch.h"
#include "engine/channel.h"
#include "engine/kv_cache.h"
#include "engine/model.h"
#include "engine/pipeline_parallel.h"
#include "engine/rank_activity.h"
#include "engine/rank_recorder.h"
#include "engine/sampler.h"
#include "engine/step_input.h"
#include "engine/step_trace.h"
#include "kernels/backend.h"
#include "kernels/communicator.h"

namespace weft {

// Everything one worker computes with; made on one thread, then used by the worker's only.
struct WorkerParts {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Communicator> tensor_group;  // null: a rank by itself
  std::unique_ptr<Communicator> stages;        // null: one stage
  ParallelPlan plan;
  Model model;
  KvCache kv_cache;
  StepInput input;
  PipelineStage stage;
  Sampler sampler;
  int max_num_seqs = 0;
  int64_t max_model_len = 0;
  Batch largest_step;          // of no sequence
  StepTrace* trace = nullptr;  // of its steps; null: none is kept
};

// The worker of every rank, from the thread of an engine or as a process of its own.
class Worker {
 public:
  explicit Worker(WorkerParts parts);

  // The calling thread is the one that steps.
  void UseFromThisThread() { parts_.backend->UseFromThisThread(); }

  // Before the first step: a device that records steps does so now, and allocates what they need. Waits for it.
  absl::Status WarmUp();

  // Begins a step, while those begun before may be under way. True: it is done already. False: `done` is called when it
  // is, on any thread.
  bool Begin(Batch& batch, std::function<void()> done);
  // Whether the oldest begun must be finished before the next one is begun.
  bool MustFinish() const;
  bool HasBegun() const { return !begun_.empty(); }
  // The oldest begun; waits for it. Of the last stage's rank 0 the tokens mean something. An error, also of a group
  // that was aborted, is final.
  absl::StatusOr<StepResult> Finish();

  // Ends a step that waits for other ranks. Thread-safe.
  void Abort(const absl::Status& status);

  // Thread-safe; a step doesn't wait for it.
  RankStats stats() const { return recorder_.stats(); }

  // Thread-safe.
  RankActivity activity() const;

  int rank() const { return parts_.plan.rank(); }

  // Whether the engine wants this rank's results.
  bool IsReporter() const { return parts_.plan.IsLastStage() && parts_.plan.tp_rank == 0; }

 private:
  struct Begun {
    int64_t step = 0;
    absl::Time begin, has_input;
    std::unique_ptr<Sampler::Draws> draws;  // null: nothing is drawn
  };

  void Input(Batch& batch);
  void LoadInput(const Batch& batch);
  std::unique_ptr<Sampler::Draws> RunStage(const Batch& batch);
  bool CanReplay() const;
  bool IsAlone() const;
  absl::Status GroupStatus() const;
  absl::Status RecordExpertLoad();

  WorkerParts parts_;
  std::deque<Begun> begun_;  // oldest first
  absl::Time finished_;      // the one before
  std::atomic<int64_t> step_ = -1;
  std::atomic<bool> in_step_ = false;
  RankRecorder recorder_;
  ExpertLoad expert_load_;  // kept for its memory
};

}  // namespace weft
