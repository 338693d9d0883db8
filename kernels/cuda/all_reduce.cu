// x = the sum over ranks of x, by memory that all ranks see, in the order of ranks.
// Cost: one shot: each rank reads (size - 1) x bytes over the links, after one meeting of all; two shots, for larger
// tensors: 2 (size - 1) / size x bytes, and a second meeting. A meeting is a write and a read over a link.
//
// Block b of each rank has the same elements, and meets block b of the others alone. What it brings lies in one of two
// places in turn: who writes to a place again has met the others since they read it.
#include "kernels/cuda/all_reduce.h"
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/system_flag.cuh"

namespace weft::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 4;

// All threads of the block have written before, and see what the others' blocks of this number wrote before they came.
__device__ __forceinline__ void Meet(const AllReduceArgs& args, uint32_t meeting) {
  __syncthreads();
  const int peer = static_cast<int>(threadIdx.x), block = static_cast<int>(blockIdx.x);
  if (peer < args.size) {
    SetFlag(args.ranks[peer].flags + args.rank * kAllReduceBlocks + block, meeting);
  }
  __syncthreads();
  if (peer < args.size) {
    const uint32_t* const flag = args.ranks[args.rank].flags + peer * kAllReduceBlocks + block;
    const uint64_t begin = NanosecondsNow();
    // Counts wrap around: the difference tells who is ahead.
    while (static_cast<int32_t>(SeeFlag(flag) - meeting) < 0 && SeeFlag(args.is_over) == 0) {
      if (NanosecondsNow() - begin > args.timeout_ns) SetFlag(args.is_over, 1);
      Pause();
    }
  }
  __syncthreads();
}

// Packs begin .. end of a tensor, spread over the blocks, and over a block's threads.
struct Slice {
  int64_t begin = 0;
  int64_t end = 0;
};

__device__ __forceinline__ Slice SliceOfBlock(int64_t begin, int64_t end) {
  const int64_t each = (end - begin + kAllReduceBlocks - 1) / kAllReduceBlocks;
  const int64_t first = min(begin + each * static_cast<int64_t>(blockIdx.x), end);
  return {first, min(first + each, end)};
}

// The packs of one rank, of the two-shot sum.
__device__ __forceinline__ Slice PartOf(int rank, int size, int64_t num_packs) {
  return SliceOfBlock(num_packs * rank / size, num_packs * (rank + 1) / size);
}

template <typename T>
using Elements = Pack<T, kVector>;

template <typename T>
__device__ __forceinline__ void Copy(const char* from, char* to, Slice slice) {
  for (int64_t i = slice.begin + threadIdx.x; i < slice.end; i += kThreads) {
    reinterpret_cast<Elements<T>*>(to)[i] = reinterpret_cast<const Elements<T>*>(from)[i];
  }
}

template <typename T>
__device__ __forceinline__ void Sum(const AllReduceArgs& args, size_t place, char* to, Slice slice) {
  for (int64_t i = slice.begin + threadIdx.x; i < slice.end; i += kThreads) {
    float sum[kVector] = {};
    for (int rank = 0; rank < args.size; ++rank) {
      float values[kVector];
      Load(reinterpret_cast<const T*>(args.ranks[rank].given + place) + i * kVector, values);
#pragma unroll
      for (int j = 0; j < kVector; ++j) sum[j] = rank == 0 ? values[j] : sum[j] + values[j];
    }
    Store(reinterpret_cast<T*>(to) + i * kVector, sum);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    AllReduceKernel(char* x, int64_t num_packs, bool in_two_shots, const AllReduceArgs args) {
  uint32_t* const num_meetings = args.num_meetings + blockIdx.x;
  const uint32_t meeting = *num_meetings + 2;  // two a call, so that the place is told from it
  const size_t place = meeting / 2 % 2 * kAllReduceBytes;
  const PeerMemory& own = args.ranks[args.rank];
  if (!in_two_shots) {
    const Slice slice = SliceOfBlock(0, num_packs);
    Copy<T>(x, own.given + place, slice);
    Meet(args, meeting);
    Sum<T>(args, place, x, slice);
  } else {
    for (int rank = 0; rank < args.size; ++rank) Copy<T>(x, own.given + place, PartOf(rank, args.size, num_packs));
    Meet(args, meeting - 1);
    Sum<T>(args, place, own.summed, PartOf(args.rank, args.size, num_packs));
    Meet(args, meeting);
    for (int rank = 0; rank < args.size; ++rank)
      Copy<T>(args.ranks[rank].summed, x, PartOf(rank, args.size, num_packs));
  }
  __syncthreads();
  if (threadIdx.x == 0) *num_meetings = meeting;
}

template <typename T>
cudaError_t LaunchFor(Tensor x, const AllReduceArgs& args, cudaStream_t stream) {
  const int64_t count = x.rows * x.cols;
  if (count % kVector != 0 || count * static_cast<int64_t>(sizeof(T)) > static_cast<int64_t>(kAllReduceBytes)) {
    return cudaErrorInvalidValue;
  }
  const bool in_two_shots = args.size > 2 && static_cast<size_t>(count) * sizeof(T) > kOneShotBytes;
  const LaunchShape shape{.grid = dim3(kAllReduceBlocks), .block = dim3(kThreads)};
  return Launch(AllReduceKernel<T>, shape, stream, static_cast<char*>(x.data), count / kVector, in_two_shots, args);
}

}  // namespace

cudaError_t LaunchAllReduce(Tensor x, const AllReduceArgs& args, cudaStream_t stream) {
  WEFT_RETURN_FOR(x.dtype, LaunchFor<T>(x, args, stream));
}

}  // namespace weft::cuda
