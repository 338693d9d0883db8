// exp((logit - max) / temperature), as the CPU backend has it (kernels/cpu/exp_kernel.h): the same operations on floats
// in the same order, so the same bits, and the same tokens for the same seed. expf would differ in the last place.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace weft::cuda {

struct TokenWeight {
  float max = 0;
  float temperature = 1;

  // In [0, 1] for what isn't above max; 1 for max itself.
  __device__ __forceinline__ float operator()(float logit) const {
    constexpr float kLowest = -87.3f;
    const float x = __fdiv_rn(__fsub_rn(logit, max), temperature);
    const float clamped = fmaxf(kLowest, fminf(88.0f, x));
    const float n = rintf(__fmul_rn(clamped, 1.44269504f));
    float r = fmaf(n, -0.693145752f, clamped);
    r = fmaf(n, -1.42860682e-6f, r);
    float p = 1.0f / 5040;
    p = fmaf(p, r, 1.0f / 720);
    p = fmaf(p, r, 1.0f / 120);
    p = fmaf(p, r, 1.0f / 24);
    p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    const float power_of_two = __uint_as_float(static_cast<uint32_t>(static_cast<int>(n) + 127) << 23);
    return x < kLowest ? 0.0f : __fmul_rn(p, power_of_two);
  }
};

}  // namespace weft::cuda
