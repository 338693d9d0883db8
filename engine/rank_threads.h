// The ranks of one replica that live in this process: a thread each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/blocking_counter.h"
#include "engine/batch.h"
#include "engine/channel.h"
#include "engine/worker.h"

namespace weft {

// All of a replica's ranks (LocalEngine), or those of one worker process. A rank's error aborts the groups of all ranks
// here, which may wait for it; each then ends in an error of its own, and takes no more batches.
class RankThreads {
 public:
  // Called on the rank's thread after each step, also while this is destroyed; `rank` counts the ranks here.
  using OnStep = std::function<void(size_t rank, const Worker& worker, absl::StatusOr<StepResult> result)>;

  // Returns when all ranks are warm; an error of that is their first step's.
  RankThreads(std::vector<WorkerParts> ranks, OnStep on_step);
  ~RankThreads();  // ends the steps under way, and joins

  size_t size() const { return ranks_.size(); }
  const Worker& worker(size_t rank) const { return ranks_[rank]->worker; }

  // One more step for every rank. Not bounded here.
  void Push(const Batch& batch);
  // Thread-safe.
  void Abort(const absl::Status& status);

 private:
  struct Rank {
    explicit Rank(WorkerParts parts) : worker(std::move(parts)) {}

    Channel<std::optional<Batch>> inbox;  // none: a step is done; before the worker, whose device tells that
    Worker worker;
    int64_t num_done = 0, num_finished = 0;  // steps
    std::thread thread;
  };

  void Run(size_t index);
  absl::Status Begin(size_t index, Batch& batch);
  absl::Status OnDone(size_t index);
  absl::Status Finish(size_t index);
  void Fail(size_t index, const absl::Status& status);

  const OnStep on_step_;
  absl::BlockingCounter num_cold_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace weft
