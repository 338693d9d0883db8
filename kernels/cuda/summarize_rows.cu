// The greatest logit of a row, its lowest place, and the sum of exp((logit - max) / temperature).
// Cost: a row of n logits is read once from memory, and again from the cache for the sum; about 25 operations an
// element.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/shared_memory.cuh"
#include "kernels/cuda/token_rank.cuh"
#include "kernels/cuda/token_weight.cuh"

namespace weft::cuda {
namespace {

constexpr int kSumLanes = 16;
constexpr int kSumBlock = 1024;

struct SummaryMemory {
  IntegersOfWarps integers;
  double sums[kMaxRowThreads / kSumLanes];  // of the blocks that are summed together
};

// In the CPU backend's tree, whose bits this sum has: 16 lanes add up a block of 1024 in floats, and then each other;
// blocks are added in doubles, in their order. It decides what top_p keeps, so a draw may hang on its last bit.
__device__ __forceinline__ double SumOfWeights(const SummaryJob& job, float max, SummaryMemory& shared) {
  const TokenWeight weigh{max, job.temperature};
  const int lane = static_cast<int>(threadIdx.x) % kSumLanes;
  const int group = static_cast<int>(threadIdx.x) / kSumLanes;
  const int num_groups = static_cast<int>(blockDim.x) / kSumLanes;
  const int num_blocks = (job.count + kSumBlock - 1) / kSumBlock;
  double total = 0;  // the first thread's
  for (int first = 0; first < num_blocks; first += num_groups) {
    const int block = first + group;
    const int end = min(job.count, (block + 1) * kSumBlock);
    float sum = 0;
#pragma unroll 8
    for (int i = block * kSumBlock + lane; i < end; i += kSumLanes) sum = __fadd_rn(sum, weigh(job.logits[i]));
#pragma unroll
    for (int distance = kSumLanes / 2; distance > 0; distance /= 2) {
      sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, distance));
    }
    if (lane == 0) shared.sums[group] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 0; i < min(num_groups, num_blocks - first); ++i) total += shared.sums[i];
    }
    __syncthreads();
  }
  return total;
}

// A block a job.
__global__ void __launch_bounds__(kMaxRowThreads) SummarizeRowsKernel(const SummaryJob* jobs, RowTotals* totals) {
  SummaryMemory& shared = SharedMemory<SummaryMemory>();
  const SummaryJob job = jobs[blockIdx.x];
  uint64_t best = 0;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < job.count; i += static_cast<int>(blockDim.x)) {
    best = max(best, RankOf(job.logits[i], i));
  }
  best = BlockMax(best, shared.integers);
  const float greatest = best == 0 ? -INFINITY : LogitOfRank(best);
  const bool is_finite = fabsf(greatest) < INFINITY;
  const double sum = is_finite && job.temperature > 0 ? SumOfWeights(job, greatest, shared) : 0;
  if (threadIdx.x != 0) return;
  const bool is_known_here = job.known >= 0 && job.known < job.count;
  totals[job.row] = {.sum = sum,
                     .max = greatest,
                     .known = is_known_here ? job.logits[job.known] : -INFINITY,
                     .best = best == 0 ? -1 : TokenOfRank(best)};
}

}  // namespace

cudaError_t LaunchSummarizeRows(const SummaryJob* jobs, int num_jobs, int64_t most_tokens, RowTotals* totals,
                                cudaStream_t stream) {
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_jobs)),
                          .block = dim3(RowThreads(most_tokens)),
                          .shared_bytes = sizeof(SummaryMemory)};
  return Launch(SummarizeRowsKernel, shape, stream, jobs, totals);
}

}  // namespace weft::cuda
