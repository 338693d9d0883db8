// Sums and maxima over a warp and over a block, in one tree that depends on nothing but the number of threads.
#pragma once

#include <cuda_runtime.h>

namespace weft::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
  return x;
}

// What each warp has come to.
struct BlockReduction {
  float of_warps[kWarpSize];
};

// Writes down what each warp has come to, and returns how many there are. `shared` is free again after the block's next
// barrier.
__device__ __forceinline__ int ShareOfWarps(float x, BlockReduction& shared) {
  if (threadIdx.x % kWarpSize == 0) shared.of_warps[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  return static_cast<int>(blockDim.x) / kWarpSize;
}

// All threads of a block of whole warps call these, and all get the result.
__device__ __forceinline__ float BlockSum(float x, BlockReduction& shared) {
  const int num_warps = ShareOfWarps(WarpSum(x), shared);
  float sum = 0;
  for (int i = 0; i < num_warps; ++i) sum += shared.of_warps[i];
  return sum;
}

__device__ __forceinline__ float BlockMax(float x, BlockReduction& shared) {
  const int num_warps = ShareOfWarps(WarpMax(x), shared);
  float greatest = shared.of_warps[0];
  for (int i = 1; i < num_warps; ++i) greatest = fmaxf(greatest, shared.of_warps[i]);
  return greatest;
}

}  // namespace weft::cuda
