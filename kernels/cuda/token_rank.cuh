// Tokens in the order in which they are kept: by logit, the lower id first among equals. A rank is that order in one
// integer of 55 bits, greater is better: 32 bits for the logit, one of nothing, and 22 for the id, so that five digits
// of 11 bits have it, of which the first three are the logit's.
#pragma once

#include <cstdint>

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/sampling_jobs.h"

namespace weft::cuda {

inline constexpr int kDigitBits = 11;
inline constexpr int kNumDigits = 5;
inline constexpr int kNumLogitDigits = 3;
inline constexpr int kIdBits = kDigitBits * (kNumDigits - kNumLogitDigits);
inline constexpr uint32_t kMaxId = (1u << kIdBits) - 1;
static_assert(kMaxTokens == int64_t{kMaxId} + 1);

// Floats in their order. Both zeros are one; a NaN of either sign is above all.
__device__ __forceinline__ uint32_t KeyOf(float x) {
  uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0xffffffffu;
  if (bits == 0x80000000u) bits = 0;
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ uint64_t RankOf(float logit, int32_t token) {
  return uint64_t{KeyOf(logit)} << (kIdBits + 1) | (kMaxId - static_cast<uint32_t>(token));
}

__device__ __forceinline__ float LogitOfRank(uint64_t rank) {
  const auto key = static_cast<uint32_t>(rank >> (kIdBits + 1));
  return __uint_as_float((key >> 31) != 0 ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ int32_t TokenOfRank(uint64_t rank) {
  return static_cast<int32_t>(kMaxId - (static_cast<uint32_t>(rank) & kMaxId));
}

__device__ __forceinline__ int32_t TokenAt(const TokenLogits& row, int i) {
  return row.tokens != nullptr ? row.tokens[i] : row.first_token + i;
}

// What each warp has come to.
struct IntegersOfWarps {
  uint64_t of_warps[kWarpSize];
};

// All threads of a block of whole warps call these, and all get the result. `shared` is free again after the block's
// next barrier.
__device__ __forceinline__ uint64_t BlockMax(uint64_t x, IntegersOfWarps& shared) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    x = max(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
  if (threadIdx.x % kWarpSize == 0) shared.of_warps[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  for (unsigned i = 0; i < blockDim.x / kWarpSize; ++i) x = max(x, shared.of_warps[i]);
  return x;
}

__device__ __forceinline__ uint64_t BlockSum(uint64_t x, IntegersOfWarps& shared) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  if (threadIdx.x % kWarpSize == 0) shared.of_warps[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  uint64_t sum = 0;
  for (unsigned i = 0; i < blockDim.x / kWarpSize; ++i) sum += shared.of_warps[i];
  return sum;
}

// Of a block that goes over so many tokens: some for each thread. No result depends on it.
inline constexpr int kMaxRowThreads = 1024;
inline unsigned RowThreads(int64_t count) {
  constexpr int64_t kTokensOfAWarp = 4 * kWarpSize;
  const int64_t warps = (count + kTokensOfAWarp - 1) / kTokensOfAWarp;
  return static_cast<unsigned>(warps < 1                            ? 1
                               : warps * kWarpSize > kMaxRowThreads ? kMaxRowThreads / kWarpSize
                                                                    : warps) *
         kWarpSize;
}

}  // namespace weft::cuda
