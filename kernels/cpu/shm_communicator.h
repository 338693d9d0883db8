// The communicator of ranks on one host, threads or processes alike, through a ShmSegment.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/communicator.h"
#include "kernels/cpu/collective.h"
#include "kernels/cpu/op_recorder.h"
#include "kernels/cpu/shm_segment.h"

namespace weft::cpu {

// Ops are for one thread. Send is ahead of its Recv by at most ShmOptions::num_slots slots. A rank that dies doesn't
// end the group: who notices calls Abort, here or on the segment.
class ShmCommunicator final : public Communicator {
 public:
  // Becomes `rank` of the segment's group. The ranks of a process share its segment. Errors: InvalidArgument for a rank
  // that the group doesn't have, AlreadyExists for one that was ever attached: its place in the ops is gone.
  static absl::StatusOr<std::unique_ptr<ShmCommunicator>> Attach(std::shared_ptr<ShmSegment> segment, int rank);

  int rank() const override { return rank_; }
  int size() const override { return segment_->options().num_ranks; }
  void AllReduceSum(Tensor x) override;
  void AllGather(Tensor x, Tensor out) override;
  void Broadcast(Tensor x, int root) override;
  void Send(Tensor x, int peer) override;
  void Recv(Tensor x, int peer) override;
  void Abort(absl::Status status) override { segment_->Abort(status); }
  absl::Status status() const override { return segment_->status(); }
  CommStats stats() const override { return recorder_.stats(); }
  std::optional<CommWait> waiting() const override { return recorder_.waiting(); }

 private:
  ShmCommunicator(std::shared_ptr<ShmSegment> segment, int rank);

  // Runs step(begin, bytes) for the pieces of an op's tensor, at least once; begins each with this rank's `from`
  // (which may be null) staged for all to read. Ends early when the group is aborted, or doesn't agree.
  void ForEachStep(const Announcement& mine, const void* from,
                   absl::FunctionRef<void(size_t begin, size_t bytes)> step);
  // Waits for all ranks to come to this barrier; false after Abort.
  bool Arrive();
  bool Agree(const Announcement& mine);
  void SumSlices(float* x, size_t count);
  bool Wait(absl::FunctionRef<uint64_t()> missing);
  char* Stage(int r) { return segment_->stage(r, num_steps_); }

  const std::shared_ptr<ShmSegment> segment_;
  const int rank_;
  OpRecorder recorder_;

  // The rank's own counts; the segment's are for others to read.
  uint64_t phase_ = 0;
  uint64_t num_steps_ = 0;
  std::vector<uint64_t> num_sent_;      // [size] slots
  std::vector<uint64_t> num_received_;  // [size] slots
};

}  // namespace weft::cpu
