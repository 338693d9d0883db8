// THE SEAM, half 2: what the ranks of one group do together.
//
// A Communicator is one rank's end of a group of size() ranks. Every rank issues the same group ops (AllReduceSum,
// AllGather, Broadcast) in the same order with the same sizes; each Send has one Recv at its peer, in order for each
// pair of ranks. Ops enqueue in order with the device's ops and return; on the CPU they block. Tensors are dense
// (row_stride == cols) or have at most one row; a tensor without rows takes part like any other, so that a zero-row
// AllReduceSum is a barrier. Tensors of kI8 are raw bytes in host memory; all others are in the memory of the rank's
// backend.
//
// Errors follow the device: an op returns nothing. After the first error (of an op, or Abort) every op does nothing,
// tensors of the op that failed hold anything, and status() tells; the worker asks once a step. There is no way back:
// a group that failed is made anew. Ranks that disagree on an op or its bytes get InvalidArgument that names both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/comm_stats.h"
#include "kernels/tensor.h"

namespace weft {

// The op that a rank is in, for a watchdog to name.
struct CommWait {
  CommOp op = CommOp::kAllReduceSum;
  int64_t number = 0;  // of this rank's ops, from 0
  int64_t bytes = 0;   // of this rank's x
  absl::Duration elapsed;
  std::vector<int> missing;  // peers known not to have arrived, ascending; empty where none is waited for
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // x = x of rank 0 + x of rank 1 + ..., rounded in that order for each element by itself: equal bits on all ranks,
  // in every run, whatever else the tensor holds. Of 16 bits: summed in F32, and rounded once.    x: F32, or of
  // activations, [T, H]
  virtual void AllReduceSum(Tensor x) = 0;

  // Rank r's x becomes rows r * T .. (r + 1) * T of out on every rank. Copies bytes, of any dtype: n raw bytes are
  // DenseTensor(p, kI8, 1, n). x may be its own rows of out, and may not overlap others.   x: [T, H], out: [size T, H]
  virtual void AllGather(Tensor x, Tensor out) = 0;

  // x of `root` becomes x of every rank; returns when all have come.                       x: [T, H], any dtype
  virtual void Broadcast(Tensor x, int root) = 0;

  // x becomes the x of the peer's next Recv from this rank. Send keeps a copy, and waits only for room: how many
  // messages and bytes it may be ahead is an option of each implementation. What was sent can be lost if this
  // communicator is destroyed before the peer has received it.                             x: [T, H], any dtype
  virtual void Send(Tensor x, int peer) = 0;
  virtual void Recv(Tensor x, int peer) = 0;

  // Ends this rank's ops, those of all ranks on this host, and those of the others as soon as they talk to this one.
  // `status` isn't OK; the first to come stays. Thread-safe.
  virtual void Abort(absl::Status status) = 0;
  // The first error. Thread-safe.
  virtual absl::Status status() const = 0;

  // Both thread-safe. waiting() is empty between ops.
  virtual CommStats stats() const = 0;
  virtual std::optional<CommWait> waiting() const = 0;

  // Whether AllReduceSum may be part of what Backend::Replay records; known once one has been done.
  virtual bool CanReplay() const { return false; }
};

}  // namespace weft
