// exp, and what softmax and sampling need around it. Cost: bound by arithmetic, about 12 operations an element.
#pragma once

#include <cstdint>

namespace weft::cpu {

// exp(x) with a relative error below 2e-7; 0 where x < -87.3 (so never subnormal), at most exp(88); NaN for NaN.
// Cody and Waite's reduction x = n ln 2 + r, |r| <= ln 2 / 2, and the Taylor series of exp(r) to degree 7.
template <class S>
static inline typename S::F Exp(typename S::F x) {
  using F = typename S::F;
  constexpr float kLowest = -87.3f;
  // Min and Max give their second operand when either is NaN, so a NaN passes.
  const F clamped = S::Max(S::Set1(kLowest), S::Min(S::Set1(88.0f), x));
  const F n = S::Round(S::Mul(clamped, S::Set1(1.44269504f)));
  F r = S::Fma(n, S::Set1(-0.693145752f), clamped);  // the high bits of ln 2: n times them is exact
  r = S::Fma(n, S::Set1(-1.42860682e-6f), r);
  F p = S::Set1(1.0f / 5040);
  p = S::Fma(p, r, S::Set1(1.0f / 720));
  p = S::Fma(p, r, S::Set1(1.0f / 120));
  p = S::Fma(p, r, S::Set1(1.0f / 24));
  p = S::Fma(p, r, S::Set1(1.0f / 6));
  p = S::Fma(p, r, S::Set1(0.5f));
  p = S::Fma(p, r, S::Set1(1.0f));
  p = S::Fma(p, r, S::Set1(1.0f));
  return S::ZeroBelow(S::Scale2(p, n), x, kLowest);
}

// See Kernels::max.
template <class S>
static float MaxOf(const float* x, int64_t n) {
  typename S::F max = S::Set1(-__builtin_inff());
  typename S::F magnitude = S::Zero();  // Max may lose a NaN; this can't
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const typename S::F v = S::Load(x + i);
    max = S::Max(v, max);
    magnitude = S::MaxMagnitude(magnitude, v);
  }
  for (; i < n; ++i) {
    max = S::Max(S::Set1(x[i]), max);
    magnitude = S::MaxMagnitude(magnitude, S::Set1(x[i]));
  }
  return S::MaxLaneBits(magnitude) > 0x7f800000 ? __builtin_nanf("") : S::MaxLane(max);
}

// See Kernels::exp_weights. Sums 1024 elements at a time in float, and those sums in double.
template <class S>
static double ExpWeights(const float* x, int64_t n, float max, float temperature, float* out) {
  constexpr int64_t kBlock = 1024;
  const typename S::F shift = S::Set1(max);
  const typename S::F divisor = S::Set1(temperature);
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = n - begin < kBlock ? n : begin + kBlock;
    typename S::F sum = S::Zero();
    for (int64_t i = begin; i < end; i += 16) {
      const int64_t left = end - i < 16 ? end - i : 16;
      const typename S::F w = Exp<S>(S::Div(S::Sub(S::LoadPartial(x + i, left), shift), divisor));
      S::StorePartial(out + i, w, left);
      sum = S::Add(sum, left == 16 ? w : S::LoadPartial(out + i, left));
    }
    total += static_cast<double>(S::Sum(sum));
  }
  return total;
}

}  // namespace weft::cpu
