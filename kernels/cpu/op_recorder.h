// What one rank's ops have cost, and the op that it is in: behind stats() and waiting() of the CPU's communicators.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "kernels/communicator.h"

namespace weft::cpu {

// Written by the thread that runs the ops, read by any.
class OpRecorder {
 public:
  using Clock = std::chrono::steady_clock;

  // While it lives, the rank is in an op.
  class Op {
   public:
    Op(OpRecorder& recorder, CommOp op, size_t bytes) : recorder_(recorder) { recorder_.Begin(op, bytes); }
    ~Op() { recorder_.End(); }
    Op(const Op&) = delete;
    Op& operator=(const Op&) = delete;

   private:
    OpRecorder& recorder_;
  };

  // The ranks that the op waits for, bit r for rank r.
  void SetMissing(uint64_t ranks) { missing_.store(ranks, std::memory_order_relaxed); }
  // Time that the op has spent waiting; between ops, as when a group meets, it isn't counted.
  void AddWaiting(Clock::duration time);

  CommStats stats() const;
  std::optional<CommWait> waiting() const;

 private:
  void Begin(CommOp op, size_t bytes);
  void End();

  mutable absl::Mutex mutex_;
  CommStats stats_ ABSL_GUARDED_BY(mutex_);
  bool in_op_ ABSL_GUARDED_BY(mutex_) = false;
  CommOp op_ ABSL_GUARDED_BY(mutex_) = CommOp::kAllReduceSum;
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_ops_ ABSL_GUARDED_BY(mutex_) = 0;
  Clock::time_point begin_ ABSL_GUARDED_BY(mutex_);
  std::atomic<uint64_t> missing_{0};
};

}  // namespace weft::cpu
