// The best tokens of a row, the best first, the lowest id first among equals.
// Cost: one wanted, one pass over the row; more, a pass to find each digit of the last one's rank and one to collect
// them, all but the first from the cache, and a sorting network over those that are wanted.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/select.cuh"
#include "kernels/cuda/shared_memory.cuh"

namespace weft::cuda {
namespace {

struct PickMemory {
  SelectMemory select;
  IntegersOfWarps integers;
  int32_t num_collected;
};

__device__ __forceinline__ TokenLogits RowOf(const PickJob& job) {
  return {.logits = job.logits, .first_token = job.first_token, .count = job.count};
}

__device__ __forceinline__ uint64_t BestRank(const TokenLogits& row, PickMemory& shared) {
  uint64_t best = 0;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < row.count; i += static_cast<int>(blockDim.x)) {
    best = max(best, RankOf(row.logits[i], row.first_token + i));
  }
  return BlockMax(best, shared.integers);
}

// In the order of arrival, whatever that is: they are sorted next. Places without a rank are 0.
__device__ __forceinline__ void Collect(const PickJob& job, uint64_t least, uint64_t* ranks, PickMemory& shared) {
  if (threadIdx.x == 0) shared.num_collected = 0;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < job.count; i += static_cast<int>(blockDim.x)) {
    const uint64_t rank = RankOf(job.logits[i], job.first_token + i);
    if (rank < least) continue;
    const int place = atomicAdd(&shared.num_collected, 1);
    if (place < job.padded) ranks[place] = rank;
  }
  __syncthreads();
  for (int i = shared.num_collected + static_cast<int>(threadIdx.x); i < job.padded;
       i += static_cast<int>(blockDim.x)) {
    ranks[i] = 0;
  }
}

// A bitonic network (Batcher, AFIPS 1968), greatest first.
__device__ __forceinline__ void Sort(uint64_t* ranks, int count) {
  for (int run = 2; run <= count; run *= 2) {
    for (int distance = run / 2; distance > 0; distance /= 2) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < count / 2; i += static_cast<int>(blockDim.x)) {
        const int low = i / distance * 2 * distance + i % distance;
        const uint64_t a = ranks[low], b = ranks[low + distance];
        const bool is_falling = (low & run) == 0;
        if ((a < b) == is_falling) {
          ranks[low] = b;
          ranks[low + distance] = a;
        }
      }
    }
  }
  __syncthreads();
}

// Nothing for what is -infinity, whatever its id.
__device__ __forceinline__ PickedToken PickedOf(const PickJob& job, uint64_t rank) {
  if (rank <= RankOf(-INFINITY, 0)) return {};
  const int32_t token = TokenOfRank(rank);
  const int32_t place = token - job.first_token;
  return {job.logits[place], job.raw == nullptr ? 0 : job.raw[place], token};
}

// A block a job.
__global__ void __launch_bounds__(kMaxRowThreads)
    PickBestKernel(const PickJob* jobs, uint64_t* scratch, PickedToken* picked) {
  PickMemory& shared = SharedMemory<PickMemory>();
  const PickJob job = jobs[blockIdx.x];
  const TokenLogits row = RowOf(job);
  picked += job.picked_begin;
  if (job.wanted == 1) {
    const uint64_t best = BestRank(row, shared);
    if (threadIdx.x == 0) picked[0] = PickedOf(job, best);
    return;
  }
  uint64_t* const ranks = scratch + job.scratch_begin;
  const uint64_t least = LeastOfBest(row, {.rest = static_cast<uint64_t>(job.wanted)}, shared.select);
  Collect(job, least, ranks, shared);
  Sort(ranks, job.padded);
  for (int i = static_cast<int>(threadIdx.x); i < job.wanted; i += static_cast<int>(blockDim.x)) {
    picked[i] = PickedOf(job, ranks[i]);
  }
}

}  // namespace

cudaError_t LaunchPickBest(const PickJob* jobs, int num_jobs, int64_t most_tokens, uint64_t* scratch,
                           PickedToken* picked, cudaStream_t stream) {
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_jobs)),
                          .block = dim3(RowThreads(most_tokens)),
                          .shared_bytes = sizeof(PickMemory)};
  return Launch(PickBestKernel, shape, stream, jobs, scratch, picked);
}

}  // namespace weft::cuda
