// The vector type of the AVX-512 kernels: one zmm register. See simd_portable.h for what each function must do.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace weft::cpu {
namespace {

struct Avx512 {
  using F = __m512;
  using IAcc = __m512i;

  // 24 accumulators: two FMAs a cycle of latency four need eight; the rest hides loads.
  static constexpr int kTileRows = 6;
  static constexpr int kTileVecs = 4;
  static constexpr int kIntTileRows = 6;
  static constexpr int kIntTileVecs = 4;
  static constexpr int kDotRows = 16;
  static constexpr int kPvQueries = 4;
  static constexpr int kPvVecs = 4;

  static __mmask16 FirstLanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }

  static F Zero() { return _mm512_setzero_ps(); }
  static F Set1(float x) { return _mm512_set1_ps(x); }
  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static F LoadPartial(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(FirstLanes(n), p); }
  static void StorePartial(float* p, F a, int64_t n) { _mm512_mask_storeu_ps(p, FirstLanes(n), a); }

  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static F Round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F Scale2(F a, F n) { return _mm512_scalef_ps(a, n); }
  static F ZeroBelow(F a, F x, float limit) {
    return _mm512_mask_mov_ps(a, _mm512_cmp_ps_mask(x, Set1(limit), _CMP_LT_OQ), Zero());
  }

  // Halves, quarters, pairs: the tree of every instruction set.
  static float Sum(F a) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
  }

  // Of two vectors: in each 128-bit lane the sums of elements 0 and 2, and of 1 and 3, interleaved.
  static F FoldHalves(F a, F b) { return Add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); }
  // Of two such: in each 128-bit lane the lane's sums of all four vectors.
  static F FoldPairs(F ab, F cd) {
    const __m512d x = _mm512_castps_pd(ab);
    const __m512d y = _mm512_castps_pd(cd);
    return Add(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  // Adds neighbouring 128-bit lanes: those of a come first.
  static F FoldLanes(F a, F b) {
    return Add(_mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(2, 0, 2, 0)),
               _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
  }
  static F SumEach(const F (&a)[16]) {
    F quads[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      quads[i] = FoldPairs(FoldHalves(a[4 * i], a[4 * i + 1]), FoldHalves(a[4 * i + 2], a[4 * i + 3]));
    }
    return FoldLanes(FoldLanes(quads[0], quads[1]), FoldLanes(quads[2], quads[3]));
  }
  static float MaxLane(F a) { return _mm512_reduce_max_ps(a); }

  static __m256i Load16(const uint16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static F LoadF16(const uint16_t* p) { return _mm512_cvtph_ps(Load16(p)); }
  static F LoadBf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(Load16(p)), 16));
  }
  static void StoreBf16(uint16_t* p, F a) {
    const __m512i bits = _mm512_castps_si512(a);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __m512i chosen = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), quiet);
    const __m256i high = _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), high);
  }
  static F LoadBf16First(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
  }
  static F LoadBf16Second(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(-0x10000)));
  }

  static F MaxMagnitude(F m, F x) {
    const __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(m), magnitude));
  }
  static int32_t MaxLaneBits(F m) { return _mm512_reduce_max_epi32(_mm512_castps_si512(m)); }
  static void StoreQuantized(uint8_t* q, F a) {
    const __m512i shifted = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(128));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(shifted));
  }

  static IAcc IZero() { return _mm512_setzero_si512(); }
  // Assembly, because GCC 12 copies every accumulator of a tile around the intrinsic.
  static void IDot(IAcc& acc, const uint8_t* x, const int8_t* w) {
    int32_t four;
    __builtin_memcpy(&four, x, sizeof(four));
    const __m512i broadcast = _mm512_set1_epi32(four);
    const __m512i weights = _mm512_loadu_si512(w);
    asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(broadcast), "v"(weights));
  }
  static F IToFloat(const IAcc& acc, const int32_t* compensation) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(acc, _mm512_loadu_si512(compensation)));
  }
};

}  // namespace
}  // namespace weft::cpu
