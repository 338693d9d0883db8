// The sum over ranks by memory that all of them see: what its kernels are told.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/tensor.h"

namespace weft::cuda {

inline constexpr int kMaxPeers = 8;
inline constexpr int kAllReduceBlocks = 32;  // of a rank; those of all ranks run at once, for they wait for each other
inline constexpr size_t kAllReduceBytes = 4 << 20;  // of one call
inline constexpr size_t kOneShotBytes = 256 << 10;  // up to here each rank reads all others' and sums by itself

// One rank's memory that the others see. Whoever writes or reads another's is on the same host.
struct PeerMemory {
  char* given = nullptr;      // [2, kAllReduceBytes] what the rank brings, for odd and for even calls
  char* summed = nullptr;     // [kAllReduceBytes] its part of the sum
  uint32_t* flags = nullptr;  // [kMaxPeers, kAllReduceBlocks] how far the blocks of each rank are
};

inline constexpr size_t kPeerFlagBytes = size_t{kMaxPeers} * kAllReduceBlocks * sizeof(uint32_t);
inline constexpr size_t kPeerMemoryBytes = 3 * kAllReduceBytes + kPeerFlagBytes;

struct AllReduceArgs {
  PeerMemory ranks[kMaxPeers];
  int rank = 0;
  int size = 1;
  uint32_t* num_meetings =
      nullptr;                  // [kAllReduceBlocks] of this rank's blocks so far, each with all others' of its number
  uint32_t* is_over = nullptr;  // in host memory that the device sees: not 0: whoever waits stops
  uint64_t timeout_ns = 0;      // of a wait; then is_over is set
};

// x = x of rank 0 + x of rank 1 + ... in F32, rounded once; equal bits on all ranks. x: dense, at most kAllReduceBytes
cudaError_t LaunchAllReduce(Tensor x, const AllReduceArgs& args, cudaStream_t stream);

}  // namespace weft::cuda
