// In place of CUDA's header of this name: what Weft's kernels use of it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/half.h"

struct __half {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
inline float __half2float(__half x) { return weft::F16ToF32(x.bits); }
inline __half __float2half_rn(float x) { return {weft::F32ToF16(x)}; }
inline float2 __half22float2(__half2 x) { return {__half2float(x.x), __half2float(x.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
