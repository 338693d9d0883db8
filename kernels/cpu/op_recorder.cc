#include "kernels/cpu/op_recorder.h"

namespace weft::cpu {

void OpRecorder::Begin(CommOp op, size_t bytes) {
  const absl::MutexLock lock(&mutex_);
  in_op_ = true;
  op_ = op;
  bytes_ = static_cast<int64_t>(bytes);
  begin_ = Clock::now();
}

void OpRecorder::End() {
  SetMissing(0);
  const absl::MutexLock lock(&mutex_);
  CommOpStats& stats = stats_.ops[static_cast<size_t>(op_)];
  ++stats.calls;
  stats.bytes += bytes_;
  stats.total += absl::FromChrono(Clock::now() - begin_);
  ++num_ops_;
  in_op_ = false;
}

void OpRecorder::AddWaiting(Clock::duration time) {
  const absl::MutexLock lock(&mutex_);
  if (in_op_) stats_.ops[static_cast<size_t>(op_)].waiting += absl::FromChrono(time);
}

CommStats OpRecorder::stats() const {
  const absl::MutexLock lock(&mutex_);
  return stats_;
}

std::optional<CommWait> OpRecorder::waiting() const {
  const absl::MutexLock lock(&mutex_);
  if (!in_op_) return std::nullopt;
  CommWait wait{op_, num_ops_, bytes_, absl::FromChrono(Clock::now() - begin_), {}};
  const uint64_t missing = missing_.load(std::memory_order_relaxed);
  for (int rank = 0; rank < 64; ++rank) {
    if ((missing >> rank & 1) != 0) wait.missing.push_back(rank);
  }
  return wait;
}

}  // namespace weft::cpu
