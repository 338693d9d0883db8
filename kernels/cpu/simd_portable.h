// The vector type of the portable kernels: 16 lanes in plain C++, for the compiler to vectorise as it can.
//
// This header is also the manual of the interface: simd_avx2.h and simd_avx512.h have the same functions. The type must
// have internal linkage, so that templates over it do too: code compiled for a newer instruction set must never be the
// copy that the linker keeps for everybody. Hence no function of the standard library in here.
#pragma once

#include <cstdint>

#include "kernels/half.h"

namespace weft::cpu {
namespace {

struct Portable {
  struct F {  // 16 floats
    float v[16];
  };
  using IAcc = struct IntAccumulators { int32_t v[16]; };

  // Register tiles: rows of x times vectors of columns. Attention: keys a group, queries times vectors of values.
  static constexpr int kTileRows = 4;
  static constexpr int kTileVecs = 1;
  static constexpr int kIntTileRows = 2;
  static constexpr int kIntTileVecs = 1;
  static constexpr int kDotRows = 1;
  static constexpr int kPvQueries = 1;
  static constexpr int kPvVecs = 1;

  template <class Fn>
  static F Map(Fn fn) {
    F r;
    for (int i = 0; i < 16; ++i) r.v[i] = fn(i);
    return r;
  }

  static F Zero() { return Set1(0); }
  static F Set1(float x) {
    return Map([&](int) { return x; });
  }
  static F Load(const float* p) {
    return Map([&](int i) { return p[i]; });
  }
  static void Store(float* p, F a) {
    for (int i = 0; i < 16; ++i) p[i] = a.v[i];
  }
  // The first n lanes, 0 <= n <= 16; the others are zero, and memory behind them is not touched.
  static F LoadPartial(const float* p, int64_t n) {
    return Map([&](int i) { return i < n ? p[i] : 0.0f; });
  }
  static void StorePartial(float* p, F a, int64_t n) {
    for (int i = 0; i < n; ++i) p[i] = a.v[i];
  }

  static F Add(F a, F b) {
    return Map([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F Sub(F a, F b) {
    return Map([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F Mul(F a, F b) {
    return Map([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F Div(F a, F b) {
    return Map([&](int i) { return a.v[i] / b.v[i]; });
  }
  // a * b + c; rounded once where the hardware can, else twice.
  static F Fma(F a, F b, F c) {
    return Map([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
  }
  // b where either is NaN.
  static F Max(F a, F b) {
    return Map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F Min(F a, F b) {
    return Map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  // To the nearest integer, ties to even; for |a| < 2^22.
  static F Round(F a) {
    return Map([&](int i) {
      const float shifted = a.v[i] + 0x1.8p23f;
      return shifted - 0x1.8p23f;
    });
  }
  // a * 2^n for an integer n in [-126, 127].
  static F Scale2(F a, F n) {
    return Map([&](int i) { return a.v[i] * std::bit_cast<float>((static_cast<int32_t>(n.v[i]) + 127) << 23); });
  }
  // a, but 0 in the lanes where x < limit.
  static F ZeroBelow(F a, F x, float limit) {
    return Map([&](int i) { return x.v[i] < limit ? 0.0f : a.v[i]; });
  }

  // The sum of all lanes, always as this tree: halves, quarters, pairs.
  static float Sum(F a) {
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) a.v[i] += a.v[i + width];
    }
    return a.v[0];
  }
  // Lane i is the sum of a[i]'s lanes; the tree may differ from Sum's.
  static F SumEach(const F (&a)[16]) {
    return Map([&](int i) { return Sum(a[i]); });
  }
  // The largest lane's value; the lanes must hold no NaN.
  static float MaxLane(F a) {
    float m = a.v[0];
    for (int i = 1; i < 16; ++i) m = a.v[i] > m ? a.v[i] : m;
    return m;
  }

  static F LoadF16(const uint16_t* p) {
    return Map([&](int i) { return F16ToF32(p[i]); });
  }
  static F LoadBf16(const uint16_t* p) {
    return Map([&](int i) { return BF16ToF32(p[i]); });
  }
  static void StoreBf16(uint16_t* p, F a) {
    for (int i = 0; i < 16; ++i) p[i] = F32ToBF16(a.v[i]);
  }
  // Of 16 pairs of bfloat16: the first and the second of each.
  static F LoadBf16First(const uint16_t* p) {
    return Map([&](int i) { return BF16ToF32(p[2 * i]); });
  }
  static F LoadBf16Second(const uint16_t* p) {
    return Map([&](int i) { return BF16ToF32(p[2 * i + 1]); });
  }

  // The largest |bits|, as an integer: NaN above infinity above every number. Lanes of `m` so far and of x.
  static F MaxMagnitude(F m, F x) {
    return Map([&](int i) {
      const int32_t b = std::bit_cast<int32_t>(x.v[i]) & 0x7fffffff;
      return std::bit_cast<int32_t>(m.v[i]) > b ? m.v[i] : std::bit_cast<float>(b);
    });
  }
  static int32_t MaxLaneBits(F m) {
    int32_t r = 0;
    for (int i = 0; i < 16; ++i) {
      const int32_t b = std::bit_cast<int32_t>(m.v[i]);
      r = b > r ? b : r;
    }
    return r;
  }
  // q[i] = 128 + a[i], for integers a in [-127, 127].
  static void StoreQuantized(uint8_t* q, F a) {
    for (int i = 0; i < 16; ++i) q[i] = static_cast<uint8_t>(static_cast<int32_t>(a.v[i]) + 128);
  }

  static IAcc IZero() { return IAcc{}; }
  // Lane c += the dot product of four bytes of x (unsigned) and of w + 4 c (signed).
  static void IDot(IAcc& acc, const uint8_t* x, const int8_t* w) {
    for (int i = 0; i < 16; ++i) {
      acc.v[i] += x[0] * w[4 * i] + x[1] * w[4 * i + 1] + x[2] * w[4 * i + 2] + x[3] * w[4 * i + 3];
    }
  }
  // Lane c as a float, less compensation[c].
  static F IToFloat(const IAcc& acc, const int32_t* compensation) {
    return Map([&](int i) { return static_cast<float>(acc.v[i] - compensation[i]); });
  }
};

}  // namespace
}  // namespace weft::cpu
