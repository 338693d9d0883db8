// Draws a token from a row: top_k, then top_p of what that left, then min_p, and the race among what is kept.
// Cost: a pass over the row for the race, of about 60 operations a token that is kept (and fewer for one that isn't),
// and for each cut three passes, or up to five where tokens are equal at it. All read the cache: the row fits.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/race.cuh"
#include "kernels/cuda/select.cuh"
#include "kernels/cuda/shared_memory.cuh"

namespace weft::cuda {
namespace {

struct DrawMemory {
  SelectMemory select;
  IntegersOfWarps integers;
  RaceMemory race;
  DrawJob job;
};

// Which tokens run.
struct Kept {
  uint64_t least_rank = 0;
  float least_weight = 0;
  bool is_reached = true;  // top_p, by what it was given
};

// Weights are exact to 2^-42 of the greatest in units, and the CPU's are exact, but for their sum: what top_k leaves it
// sums in floats, in no fixed order. Where the mass to reach falls between the two sums, 1e-7 of it apart, the last
// token of the nucleus may be another; a draw differs only if that token wins.
__device__ __forceinline__ Kept Keep(const DrawJob& job, double sum, const TokenWeight& weigh, DrawMemory& shared) {
  const TokenLogits& row = job.row;
  Kept kept;
  if (job.top_k > 0 && job.top_k < row.count) {
    kept.least_rank = LeastOfBest(row, {.rest = static_cast<uint64_t>(job.top_k)}, shared.select);
  }
  const float least_p = job.min_p > 0 ? fminf(job.min_p, 1.0f) : 0;
  kept.least_weight = least_p;
  if (!(job.top_p < 1)) return kept;
  const double top_p = fmax(0.0, static_cast<double>(job.top_p));
  float heavy = 0;
  if (job.top_k > 0) {
    uint64_t units = 0;
    for (int i = static_cast<int>(threadIdx.x); i < row.count; i += static_cast<int>(blockDim.x)) {
      if (RankOf(row.logits[i], TokenAt(row, i)) >= kept.least_rank) units += UnitsOf(weigh(row.logits[i]));
    }
    sum = static_cast<double>(BlockSum(units, shared.integers)) / static_cast<double>(kWeightUnits);
  } else if (row.tokens == nullptr) {
    // Tokens lighter than this can't weigh 1 - top_p together, so the others hold the nucleus; halved for rounding.
    heavy = __double2float_ru((1 - top_p) * sum / row.count / 2);
  }
  const uint64_t least_rank = kept.least_rank;
  const auto units = [&](uint64_t rank, int i) -> uint64_t {
    if (rank < least_rank) return 0;
    const float weight = weigh(row.logits[i]);
    return weight >= heavy ? UnitsOf(weight) : 0;
  };
  const double target = fmax(1.0, ceil(top_p * sum * static_cast<double>(kWeightUnits)));
  const uint64_t least = LeastOfNucleus(row, static_cast<uint64_t>(target), units, weigh, shared.select);
  kept.is_reached = least != 0;
  kept.least_rank = max(kept.least_rank, least);
  kept.least_weight = fmaxf(heavy, least_p);
  return kept;
}

// Of tokens that follow one another. A thread takes the four that share their random words.
__device__ __forceinline__ Runner RunRow(const DrawJob& job, const Kept& kept, const TokenWeight& weigh) {
  const TokenLogits& row = job.row;
  const int first_group = row.first_token / 4;
  const int num_groups = row.count == 0 ? 0 : (row.first_token + row.count - 1) / 4 - first_group + 1;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  Runner soonest;
  for (int first = static_cast<int>(threadIdx.x) - lane; first < num_groups; first += static_cast<int>(blockDim.x)) {
    const double time = SoonestTimeOfLanes(soonest.time);
    if (first + lane >= num_groups) continue;
    const int32_t token = 4 * (first_group + first + lane);
    const int32_t index = token - row.first_token;
    float weights[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int i = index + j;
      weights[j] = 0;
      if (i < 0 || i >= row.count) continue;
      const float weight = weigh(row.logits[i]);
      if (weight >= kept.least_weight && RankOf(row.logits[i], token + j) >= kept.least_rank) weights[j] = weight;
    }
    RunFour(job, token, index, weights, time, soonest);
  }
  return soonest;
}

// Of a list: tokens come as they come. `last`: of those that the cuts left, the last one's rank, counted from the top.
__device__ __forceinline__ Runner RunList(const DrawJob& job, const Kept& kept, const TokenWeight& weigh,
                                          uint64_t& last) {
  Runner soonest;
  for (int i = static_cast<int>(threadIdx.x); i < job.row.count; i += static_cast<int>(blockDim.x)) {
    const int32_t token = job.row.tokens[i];
    const uint64_t rank = RankOf(job.row.logits[i], token);
    if (rank < kept.least_rank) continue;
    last = max(last, ~rank);
    const float weight = weigh(job.row.logits[i]);
    if (!(weight >= kept.least_weight)) continue;
    float weights[4] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) weights[j] = token % 4 == j ? weight : 0;
    RunFour(job, token - token % 4, i - token % 4, weights, soonest.time, soonest);
  }
  return soonest;
}

// A block a job. A row whose maximum isn't finite is left alone: the host sees that too.
__global__ void __launch_bounds__(kMaxRowThreads)
    DrawTokensKernel(const DrawJob* jobs, const RowTotals* totals, DrawnToken* drawn) {
  DrawMemory& shared = SharedMemory<DrawMemory>();
  // Not in registers: 1024 threads have few.
  if (threadIdx.x == 0) shared.job = jobs[blockIdx.x];
  __syncthreads();
  const DrawJob& job = shared.job;
  const RowTotals total = totals[job.totals];
  DrawnToken out;
  if (fabsf(total.max) < INFINITY && job.temperature == 0) {
    out.index = total.best;
    out.token = TokenAt(job.row, total.best);
  } else if (fabsf(total.max) < INFINITY) {
    const TokenWeight weigh{total.max, job.temperature};
    const Kept kept = Keep(job, total.sum, weigh, shared);
    out.is_reached = kept.is_reached ? 1 : 0;
    Runner soonest;
    if (job.row.tokens == nullptr) {
      soonest = RunRow(job, kept, weigh);
    } else {
      uint64_t last = 0;
      soonest = RunList(job, kept, weigh, last);
      __syncthreads();
      last = ~BlockMax(last, shared.integers);
      out.last_logit = LogitOfRank(last);
      out.last_token = TokenOfRank(last);
    }
    soonest = SoonestOfBlock(soonest, shared.race);
    if (soonest.index >= 0) {
      out.time = soonest.time;
      out.token = soonest.token;
      out.index = soonest.index;
    }
  }
  if (threadIdx.x != 0) return;
  if (out.index >= 0 && job.raw != nullptr) out.raw = job.raw[out.index];
  drawn[blockIdx.x] = out;
  if (job.keep != nullptr) *job.keep = out.token;
}

}  // namespace

cudaError_t LaunchDrawTokens(const DrawJob* jobs, int num_jobs, int64_t most_tokens, const RowTotals* totals,
                             DrawnToken* drawn, cudaStream_t stream) {
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_jobs)),
                          .block = dim3(RowThreads(most_tokens)),
                          .shared_bytes = sizeof(DrawMemory)};
  return Launch(DrawTokensKernel, shape, stream, jobs, totals, drawn);
}

}  // namespace weft::cuda
