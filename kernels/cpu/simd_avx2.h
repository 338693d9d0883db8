// The vector type of the AVX2 kernels: two ymm registers. See simd_portable.h for what each function must do.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace weft::cpu {
namespace {

struct Avx2 {
  struct F {
    __m256 low;
    __m256 high;
  };
  // Two sums of pairs for each of 16 columns, four columns a register.
  struct IAcc {
    __m256i quarter[4];
  };

  // Twelve accumulators of the sixteen registers.
  static constexpr int kTileRows = 3;
  static constexpr int kTileVecs = 2;
  static constexpr int kIntTileRows = 2;
  static constexpr int kIntTileVecs = 1;
  static constexpr int kDotRows = 4;
  static constexpr int kPvQueries = 2;
  static constexpr int kPvVecs = 2;

  // All bits set in the first n of eight lanes; n outside 0 .. 8 counts as the nearer end.
  static __m256i FirstLanes(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
  }

  static F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F Set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void Store(float* p, F a) {
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
  }
  static F LoadPartial(const float* p, int64_t n) {
    return {_mm256_maskload_ps(p, FirstLanes(n)), _mm256_maskload_ps(p + 8, FirstLanes(n - 8))};
  }
  static void StorePartial(float* p, F a, int64_t n) {
    _mm256_maskstore_ps(p, FirstLanes(n), a.low);
    _mm256_maskstore_ps(p + 8, FirstLanes(n - 8), a.high);
  }

  static F Add(F a, F b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
  static F Sub(F a, F b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
  static F Mul(F a, F b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
  static F Div(F a, F b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
  static F Fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static F Max(F a, F b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
  static F Min(F a, F b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
  static F Round(F a) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.low, kNearest), _mm256_round_ps(a.high, kNearest)};
  }
  static __m256 Scale2Half(__m256 a, __m256 n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
  }
  static F Scale2(F a, F n) { return {Scale2Half(a.low, n.low), Scale2Half(a.high, n.high)}; }
  static F ZeroBelow(F a, F x, float limit) {
    const __m256 l = _mm256_set1_ps(limit);
    return {_mm256_andnot_ps(_mm256_cmp_ps(x.low, l, _CMP_LT_OQ), a.low),
            _mm256_andnot_ps(_mm256_cmp_ps(x.high, l, _CMP_LT_OQ), a.high)};
  }

  // Halves, quarters, pairs: the tree of every instruction set.
  static float Sum(F a) {
    const __m256 half = _mm256_add_ps(a.low, a.high);
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
  }

  static __m256 AddHalves(F a) { return _mm256_add_ps(a.low, a.high); }
  // In each 128-bit lane the lane's sums of four vectors.
  static __m256 FoldFour(__m256 a, __m256 b, __m256 c, __m256 d) {
    const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const __m256d x = _mm256_castps_pd(ab);
    const __m256d y = _mm256_castps_pd(cd);
    return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)), _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
  }
  static __m256 SumEight(const F* a) {
    const __m256 s = FoldFour(AddHalves(a[0]), AddHalves(a[1]), AddHalves(a[2]), AddHalves(a[3]));
    const __m256 t = FoldFour(AddHalves(a[4]), AddHalves(a[5]), AddHalves(a[6]), AddHalves(a[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(s, t, 0x20), _mm256_permute2f128_ps(s, t, 0x31));
  }
  static F SumEach(const F (&a)[16]) { return {SumEight(a), SumEight(a + 8)}; }
  static float MaxLane(F a) {
    const __m256 half = _mm256_max_ps(a.low, a.high);
    __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_max_ss(quarter, _mm_movehdup_ps(quarter)));
  }

  static __m128i Load8(const uint16_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static F LoadF16(const uint16_t* p) { return {_mm256_cvtph_ps(Load8(p)), _mm256_cvtph_ps(Load8(p + 8))}; }
  static __m256 WidenBf16(__m128i a) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16)); }
  static F LoadBf16(const uint16_t* p) { return {WidenBf16(Load8(p)), WidenBf16(Load8(p + 8))}; }
  static __m256i ToBf16(__m256 a) {  // in the low half of each element
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  }
  static void StoreBf16(uint16_t* p, F a) {
    const __m256i packed = _mm256_packus_epi32(ToBf16(a.low), ToBf16(a.high));  // interleaves the halves' lanes
    const __m256i ordered = _mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), ordered);
  }
  static __m256i Load32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static F LoadBf16First(const uint16_t* p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(Load32(p), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(Load32(p + 16), 16))};
  }
  static F LoadBf16Second(const uint16_t* p) {
    const __m256i mask = _mm256_set1_epi32(-0x10000);
    return {_mm256_castsi256_ps(_mm256_and_si256(Load32(p), mask)),
            _mm256_castsi256_ps(_mm256_and_si256(Load32(p + 16), mask))};
  }

  static __m256 MaxMagnitudeHalf(__m256 m, __m256 x) {
    const __m256i magnitude = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(m), magnitude));
  }
  static F MaxMagnitude(F m, F x) { return {MaxMagnitudeHalf(m.low, x.low), MaxMagnitudeHalf(m.high, x.high)}; }
  static int32_t MaxLaneBits(F m) {
    const __m256i half = _mm256_max_epi32(_mm256_castps_si256(m.low), _mm256_castps_si256(m.high));
    __m128i quarter = _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    quarter = _mm_max_epi32(quarter, _mm_shuffle_epi32(quarter, _MM_SHUFFLE(1, 0, 3, 2)));
    quarter = _mm_max_epi32(quarter, _mm_shuffle_epi32(quarter, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(quarter);
  }
  static void StoreQuantized(uint8_t* q, F a) {
    const __m256i shift = _mm256_set1_epi32(128);
    const __m256i low = _mm256_add_epi32(_mm256_cvtps_epi32(a.low), shift);
    const __m256i high = _mm256_add_epi32(_mm256_cvtps_epi32(a.high), shift);
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), _MM_SHUFFLE(3, 1, 2, 0));
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), bytes);
  }

  static IAcc IZero() {
    const __m256i zero = _mm256_setzero_si256();
    return {{zero, zero, zero, zero}};
  }
  // By way of 16 bits: the instruction that multiplies bytes (vpmaddubsw) saturates.
  static void IDot(IAcc& acc, const uint8_t* x, const int8_t* w) {
    int32_t four;
    __builtin_memcpy(&four, x, sizeof(four));
    const __m256i broadcast = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(four)));
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * i));
      const __m256i products = _mm256_madd_epi16(broadcast, _mm256_cvtepi8_epi16(bytes));
      acc.quarter[i] = _mm256_add_epi32(acc.quarter[i], products);
    }
  }
  // The sums of eight columns from the pairs of two registers.
  static __m256 PairsToFloat(__m256i a, __m256i b, const int32_t* compensation) {
    const __m256i sums = _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), _MM_SHUFFLE(3, 1, 2, 0));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, Load32(compensation)));
  }
  static F IToFloat(const IAcc& acc, const int32_t* compensation) {
    return {PairsToFloat(acc.quarter[0], acc.quarter[1], compensation),
            PairsToFloat(acc.quarter[2], acc.quarter[3], compensation + 8)};
  }
};

}  // namespace
}  // namespace weft::cpu
