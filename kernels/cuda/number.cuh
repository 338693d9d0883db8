// The types that activations have on a device, read and written as floats, several at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace weft::cuda {

using F16 = __half;
using BF16 = __nv_bfloat16;

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(int8_t x) { return x; }
__device__ __forceinline__ float ToFloat(F16 x) { return __half2float(x); }
__device__ __forceinline__ float ToFloat(BF16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ F16 FromFloat<F16>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ BF16 FromFloat<BF16>(float x) {
  return __float2bfloat16_rn(x);
}

// So many elements that one instruction moves: at most 16 bytes, aligned to their size.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];
};

template <typename T, int kCount>
__device__ __forceinline__ void Load(const T* from, float (&to)[kCount]) {
  const auto pack = *reinterpret_cast<const Pack<T, kCount>*>(from);
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = ToFloat(pack.values[i]);
}

template <typename T, int kCount>
__device__ __forceinline__ void Store(T* to, const float (&from)[kCount]) {
  Pack<T, kCount> pack;
#pragma unroll
  for (int i = 0; i < kCount; ++i) pack.values[i] = FromFloat<T>(from[i]);
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

}  // namespace weft::cuda
