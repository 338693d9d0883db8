// Kernels of one row: norm, residual, activation, rotation. Cost: each reads and writes its rows once; bound by the
// first-level cache, since the linear before has just written them.
#pragma once

#include <cstdint>

#include "kernels/cpu/exp_kernel.h"

namespace weft::cpu {

// The mean of squares reduces in one fixed tree: four accumulators take vectors in turn, then pairs, then lanes.
template <class S>
static void RmsNorm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  using F = typename S::F;
  F sum[4] = {S::Zero(), S::Zero(), S::Zero(), S::Zero()};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const F a = S::Load(x + i + 16 * v);
      sum[v] = S::Fma(a, a, sum[v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const int64_t left = n - i - 16 * v;
    const F a = S::LoadPartial(x + i + 16 * v, left < 0 ? 0 : left > 16 ? 16 : left);
    sum[v] = S::Fma(a, a, sum[v]);
  }
  const float square = S::Sum(S::Add(S::Add(sum[0], sum[1]), S::Add(sum[2], sum[3])));
  const F factor = S::Set1(1.0f / __builtin_sqrtf(square / static_cast<float>(n) + eps));
  for (i = 0; i + 16 <= n; i += 16) {
    S::Store(out + i, S::Mul(S::Mul(S::Load(x + i), factor), S::Load(weight + i)));
  }
  const int64_t left = n - i;
  S::StorePartial(out + i, S::Mul(S::Mul(S::LoadPartial(x + i, left), factor), S::LoadPartial(weight + i, left)), left);
}

template <class S>
static void AddTo(float* x, const float* delta, int64_t n) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) S::Store(x + i, S::Add(S::Load(x + i), S::Load(delta + i)));
  for (; i < n; ++i) x[i] += delta[i];
}

template <class S>
static void AddScaled(float* x, const float* delta, float factor, int64_t n) {
  const typename S::F f = S::Set1(factor);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) S::Store(x + i, S::Fma(S::Load(delta + i), f, S::Load(x + i)));
  const int64_t left = n - i;
  S::StorePartial(x + i, S::Fma(S::LoadPartial(delta + i, left), f, S::LoadPartial(x + i, left)), left);
}

template <class S>
static void ScaleBy(const float* x, float factor, int64_t n, float* out) {
  const typename S::F f = S::Set1(factor);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) S::Store(out + i, S::Mul(S::Load(x + i), f));
  for (; i < n; ++i) out[i] = x[i] * factor;
}

template <class S>
static inline typename S::F SiluTimes(typename S::F gate, typename S::F up) {
  const typename S::F e = Exp<S>(S::Sub(S::Zero(), gate));
  return S::Mul(S::Div(gate, S::Add(S::Set1(1.0f), e)), up);
}

template <class S>
static void SwiGlu(const float* gate, const float* up, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) S::Store(out + i, SiluTimes<S>(S::Load(gate + i), S::Load(up + i)));
  const int64_t left = n - i;
  S::StorePartial(out + i, SiluTimes<S>(S::LoadPartial(gate + i, left), S::LoadPartial(up + i, left)), left);
}

template <class S>
static void Rotate(float* head, const float* cos_sin, int64_t half) {
  using F = typename S::F;
  for (int64_t i = 0; i < half; i += 16) {
    const int64_t left = half - i < 16 ? half - i : 16;
    const F a = S::LoadPartial(head + i, left);
    const F b = S::LoadPartial(head + half + i, left);
    const F c = S::LoadPartial(cos_sin + i, left);
    const F s = S::LoadPartial(cos_sin + half + i, left);
    S::StorePartial(head + i, S::Sub(S::Mul(a, c), S::Mul(b, s)), left);
    S::StorePartial(head + half + i, S::Add(S::Mul(b, c), S::Mul(a, s)), left);
  }
}

template <class S>
static void StoreBf16Row(const float* x, int64_t n, uint16_t* out) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) S::StoreBf16(out + i, S::Load(x + i));
  uint16_t last[16];
  S::StoreBf16(last, S::LoadPartial(x + i, n - i));
  for (int64_t j = 0; i + j < n; ++j) out[i + j] = last[j];
}

}  // namespace weft::cpu
