// The race of kernels/sampling.h: token i finishes at -log(1 - u_i) / w_i, and the soonest wins.
//
// Times are doubles, as the CPU backend's are, from the same random words and the same weights. The two may differ in a
// time's last place, where two log1p do: for another winner two of the soonest would have to be that close, which
// happens once in some 1e15 draws. It costs little: a token whose u alone is too late never comes to the logarithm.
#pragma once

#include <cstdint>

#include "kernels/cuda/token_rank.cuh"
#include "kernels/philox.h"

namespace weft::cuda {

struct Runner {
  double time = INFINITY;
  int32_t token = 0x7fffffff;
  int32_t index = -1;  // its place in the row
};

__device__ __forceinline__ bool IsSooner(const Runner& a, const Runner& b) {
  return a.time < b.time || (a.time == b.time && a.token < b.token);
}

__device__ __forceinline__ Runner SoonestOfLanes(Runner runner) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const Runner other{__shfl_xor_sync(kAllLanes, runner.time, distance),
                       __shfl_xor_sync(kAllLanes, runner.token, distance),
                       __shfl_xor_sync(kAllLanes, runner.index, distance)};
    if (IsSooner(other, runner)) runner = other;
  }
  return runner;
}

struct RaceMemory {
  Runner of_warps[kWarpSize];
};

__device__ __forceinline__ Runner SoonestOfBlock(Runner runner, RaceMemory& shared) {
  runner = SoonestOfLanes(runner);
  if (threadIdx.x % kWarpSize == 0) shared.of_warps[threadIdx.x / kWarpSize] = runner;
  __syncthreads();
  for (unsigned i = 0; i < blockDim.x / kWarpSize; ++i) {
    if (IsSooner(shared.of_warps[i], runner)) runner = shared.of_warps[i];
  }
  return runner;
}

__device__ __forceinline__ double SoonestTimeOfLanes(double time) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    time = fmin(time, __shfl_xor_sync(kAllLanes, time, distance));
  }
  return time;
}

// Whether a token may still win over one of `time`. -log(1 - u) is above u by more than any rounding, so that what is
// too late by u alone is too late.
__device__ __forceinline__ bool MayWin(double u, float weight, double time) {
  return weight > 0 && !(u > time * static_cast<double>(weight));
}

// The soonest of four tokens that share their random words, the first of them `token`, at `index`. weights: 0 for those
// that don't run. `time`: of somebody, who may be another thread's.
__device__ __forceinline__ void RunFour(const DrawJob& job, int32_t token, int32_t index, const float (&weights)[4],
                                        double time, Runner& soonest) {
  const float greatest = fmaxf(fmaxf(weights[0], weights[1]), fmaxf(weights[2], weights[3]));
  if (!MayWin(UnitInterval(0), greatest, time)) return;
  const Philox4 words = SamplingWords(job.seed, job.sequence, job.position, static_cast<uint32_t>(token) / 4);
  // One copy of the logarithm for all four: it is most of the registers.
#pragma unroll 1
  for (int j = 0; j < 4; ++j) {
    const uint32_t word = j == 0 ? words.word[0] : j == 1 ? words.word[1] : j == 2 ? words.word[2] : words.word[3];
    const float weight = j == 0 ? weights[0] : j == 1 ? weights[1] : j == 2 ? weights[2] : weights[3];
    const double u = UnitInterval(word);
    if (!MayWin(u, weight, fmin(time, soonest.time))) continue;
    const Runner runner{-log1p(-u) / static_cast<double>(weight), token + j, index + j};
    if (IsSooner(runner, soonest)) soonest = runner;
  }
}

}  // namespace weft::cuda
