// out = x W^T + b on one thread. Cost: 2 rows n k FLOPs, and each weight read from memory once, whatever the rows.
//
// Every output element is one chain of FMAs in ascending k, begun at its bias: tiles, blocks of k and threads never cut
// or reorder the chain, which is what makes the linear batch invariant. (kI8 sums integers, which is exact anyway.)
#pragma once

#include <cstdint>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/panel.h"

namespace weft::cpu {

// How the weights of one type lie in a panel and become floats: kGroup inputs side by side, kColumnBytes for them.
template <class S>
struct F32Weights {
  static constexpr int kGroup = 1;
  static constexpr int kColumnBytes = 4;
  static typename S::F Load(const char* p, int) { return S::Load(reinterpret_cast<const float*>(p)); }
};

template <class S>
struct F16Weights {
  static constexpr int kGroup = 1;
  static constexpr int kColumnBytes = 2;
  static typename S::F Load(const char* p, int) { return S::LoadF16(reinterpret_cast<const uint16_t*>(p)); }
};

template <class S>
struct Bf16Weights {
  static constexpr int kGroup = 2;
  static constexpr int kColumnBytes = 4;
  static typename S::F Load(const char* p, int member) {
    const auto* pairs = reinterpret_cast<const uint16_t*>(p);
    return member == 0 ? S::LoadBf16First(pairs) : S::LoadBf16Second(pairs);
  }
};

// Where a tile lies: rows from `row`, columns from `column` on, inputs k_begin .. k_end; and its weights from there on.
struct TilePlace {
  int64_t row;
  int64_t column;
  int64_t k_begin;
  int64_t k_end;
  const char* weight;
  int64_t panel_bytes;
};

// The weights of the v-th vector of columns from `place` on: two vectors a panel.
template <int kColumnBytes>
static inline const char* VectorAddress(const TilePlace& place, int v) {
  return place.weight + v / 2 * place.panel_bytes + v % 2 * 16 * kColumnBytes;
}

// Columns of the vector at `column` that exist.
template <class S>
static inline int64_t ColumnsLeft(const LinearArgs& args, int64_t column) {
  const int64_t left = args.n - column;
  return left > 16 ? 16 : left < 0 ? 0 : left;
}

// One step of a tile: acc[r][v] += x[r][k + member] * w[v] for one member of a group.
template <class S, class W, int kRows, int kVecs>
static inline void FloatStep(const float* x, int64_t x_stride, const char* const (&w)[kVecs], int member,
                             typename S::F (&acc)[kRows][kVecs]) {
  typename S::F weights[kVecs];
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) weights[v] = W::Load(w[v], member);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const typename S::F broadcast = S::Set1(x[r * x_stride + member]);
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) acc[r][v] = S::Fma(broadcast, weights[v], acc[r][v]);
  }
}

// The tile of kRows rows and 16 kVecs columns at `place`: continues the sums in out, or begins them at the bias.
template <class S, class W, int kRows, int kVecs>
static void FloatTile(const LinearArgs& args, const TilePlace& place) {
  constexpr int64_t kRowBytes = kPanel * W::kColumnBytes;
  const int64_t x_stride = args.x_stride;
  const float* x = static_cast<const float*>(args.x) + place.row * x_stride + place.k_begin;
  float* const out = args.out + place.row * args.out_stride + place.column;
  typename S::F acc[kRows][kVecs];
  const char* w[kVecs];
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) {
    const int64_t column = place.column + 16 * v;
    const int64_t left = ColumnsLeft<S>(args, column);
    w[v] = VectorAddress<W::kColumnBytes>(place, v);
    const bool fresh = place.k_begin == 0;
    const typename S::F bias = fresh && args.bias != nullptr ? S::Load(args.bias + column) : S::Zero();
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      acc[r][v] = fresh ? bias : S::LoadPartial(out + r * args.out_stride + 16 * v, left);
    }
  }
  const int64_t count = place.k_end - place.k_begin;
  for (int64_t k = 0; k + W::kGroup <= count; k += W::kGroup) {
#pragma GCC unroll 2
    for (int member = 0; member < W::kGroup; ++member) FloatStep<S, W, kRows, kVecs>(x, x_stride, w, member, acc);
    x += W::kGroup;
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) w[v] += kRowBytes;
  }
  // A last group that is not full: x ends inside it.
  for (int member = 0; member < count % W::kGroup; ++member) {
    FloatStep<S, W, kRows, kVecs>(x, x_stride, w, member, acc);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      S::StorePartial(out + r * args.out_stride + 16 * v, acc[r][v], ColumnsLeft<S>(args, place.column + 16 * v));
    }
  }
}

// The same for bytes, over all of k: sums of integers, then one scaling, in one order on every instruction set.
template <class S, int kRows, int kVecs>
static void IntTile(const LinearArgs& args, const TilePlace& place) {
  constexpr int kGroup = 4;
  constexpr int64_t kRowBytes = kPanel * kGroup;
  const int64_t x_stride = args.x_stride;
  const uint8_t* x = static_cast<const uint8_t*>(args.x) + place.row * x_stride;
  float* const out = args.out + place.row * args.out_stride + place.column;
  typename S::IAcc acc[kRows][kVecs];
  const char* w[kVecs];
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) {
    w[v] = VectorAddress<kGroup>(place, v);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) acc[r][v] = S::IZero();
  }
  for (int64_t k = 0; k < args.k; k += kGroup) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) {
        S::IDot(acc[r][v], x + r * x_stride + k, reinterpret_cast<const int8_t*>(w[v] + k / kGroup * kRowBytes));
      }
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) {
    const int64_t column = place.column + 16 * v;
    const char* const panel = args.weight + column / kPanel * args.panel_bytes;
    const auto* compensation = reinterpret_cast<const int32_t*>(panel + args.panel_bytes - kPanel * 4);
    const typename S::F scale = S::Load(args.weight_scale + column);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      typename S::F sum = S::IToFloat(acc[r][v], compensation + column % kPanel);
      sum = S::Mul(S::Mul(sum, scale), S::Set1(args.x_scale[place.row + r]));
      if (args.bias != nullptr) sum = S::Add(sum, S::Load(args.bias + column));
      S::StorePartial(out + r * args.out_stride + 16 * v, sum, ColumnsLeft<S>(args, column));
    }
  }
}

using TileFunction = void (*)(const LinearArgs&, const TilePlace&);

// Inputs that the tiles of floats take at a time, when there are several: their weights then stay in the second-level
// cache for all rows. (128 and 256, which fit the first level, measured slower: x comes in shorter runs.)
inline constexpr int64_t kBlock = 512;

// The tiles of one weight type, for Strip.
template <class S, class W>
struct FloatTiles {
  using Weights = W;
  static constexpr bool kBlocked = true;
  static constexpr int kGroup = W::kGroup;
  static constexpr int kColumnBytes = W::kColumnBytes;
  static constexpr int kMaxRows = S::kTileRows;
  static constexpr int kMaxVecs = S::kTileVecs;
  template <int kRows, int kVecs>
  static constexpr TileFunction kTile = FloatTile<S, W, kRows, kVecs>;
};

template <class S>
struct IntTiles {
  static constexpr bool kBlocked = false;  // the sums live in registers only
  static constexpr int kGroup = 4;
  static constexpr int kColumnBytes = 4;
  static constexpr int kMaxRows = S::kIntTileRows;
  static constexpr int kMaxVecs = S::kIntTileVecs;
  template <int kRows, int kVecs>
  static constexpr TileFunction kTile = IntTile<S, kRows, kVecs>;
};

// The tile of `rows` rows, 1 <= rows <= kRows.
template <class Tiles, int kVecs, int kRows = Tiles::kMaxRows>
static TileFunction TileOf(int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return TileOf<Tiles, kVecs, kRows - 1>(rows);
  }
  return Tiles::template kTile<kRows, kVecs>;
}

// All rows of one place. Rows are dealt evenly: 7 are 4 + 3, since a tile of one row is bound by latency.
template <class Tiles, int kVecs>
static void AllRows(const LinearArgs& args, TilePlace place) {
  const int64_t num_tiles = (args.rows + Tiles::kMaxRows - 1) / Tiles::kMaxRows;
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    place.row = args.rows * tile / num_tiles;
    const int64_t row_end = args.rows * (tile + 1) / num_tiles;
    TileOf<Tiles, kVecs>(row_end - place.row)(args, place);
  }
}

// The weights of one place as floats, so that many rows share the cost of converting them: panels of [kBlock][32].
template <class S, class W, int kVecs>
static void Widen(const TilePlace& place, float* out) {
  constexpr int64_t kRowBytes = kPanel * W::kColumnBytes;
  for (int v = 0; v < kVecs; ++v) {
    const char* w = VectorAddress<W::kColumnBytes>(place, v);
    float* column = out + v / 2 * kBlock * kPanel + v % 2 * 16;
    for (int64_t k = place.k_begin; k < place.k_end; k += W::kGroup, w += kRowBytes) {
      for (int member = 0; member < W::kGroup; ++member, column += kPanel) S::Store(column, W::Load(w, member));
    }
  }
}

// All rows of 16 kVecs columns, whose weights are at `weight`.
template <class S, class Tiles, int kVecs>
static void Strip(const LinearArgs& args, int64_t column, const char* weight) {
  TilePlace place{0, column, 0, args.k, weight, args.panel_bytes};
  if constexpr (Tiles::kBlocked) {
    using W = typename Tiles::Weights;
    if (args.rows > Tiles::kMaxRows) {
      const bool widen = W::kColumnBytes != 4 * W::kGroup && args.rows > 2 * Tiles::kMaxRows;
      for (; place.k_begin < args.k; place.k_begin += kBlock) {
        place.k_end = args.k - place.k_begin < kBlock ? args.k : place.k_begin + kBlock;
        place.weight = weight + place.k_begin / W::kGroup * kPanel * W::kColumnBytes;
        if (widen) {
          alignas(64) float widened[(kVecs + 1) / 2 * kBlock * kPanel];
          Widen<S, W, kVecs>(place, widened);
          TilePlace wide = place;
          wide.weight = reinterpret_cast<const char*>(widened);
          wide.panel_bytes = kBlock * kPanel * 4;
          AllRows<FloatTiles<S, F32Weights<S>>, kVecs>(args, wide);
        } else {
          AllRows<Tiles, kVecs>(args, place);
        }
      }
      return;
    }
  }
  AllRows<Tiles, kVecs>(args, place);
}

// Columns column .. column_end, in strips of 16 kVecs; what is left at the end in narrower ones.
template <class S, class Tiles, int kVecs = Tiles::kMaxVecs>
static void Strips(const LinearArgs& args, int64_t column, int64_t column_end) {
  column_end = (column_end + 15) / 16 * 16;
  for (; column + 16 * kVecs <= column_end; column += 16 * kVecs) {
    const char* const panel = args.weight + column / kPanel * args.panel_bytes;
    Strip<S, Tiles, kVecs>(args, column, panel + column % kPanel * Tiles::kColumnBytes);
  }
  if constexpr (kVecs > 1) Strips<S, Tiles, kVecs / 2>(args, column, column_end);
}

template <class S>
static void LinearColumns(const LinearArgs& args, int64_t column_begin, int64_t column_end) {
  switch (args.dtype) {
    case DType::kF32:
      return Strips<S, FloatTiles<S, F32Weights<S>>>(args, column_begin, column_end);
    case DType::kF16:
      return Strips<S, FloatTiles<S, F16Weights<S>>>(args, column_begin, column_end);
    case DType::kBF16:
      return Strips<S, FloatTiles<S, Bf16Weights<S>>>(args, column_begin, column_end);
    case DType::kI8:
      return Strips<S, IntTiles<S>>(args, column_begin, column_end);
  }
}

// Symmetric quantisation of one row of activations; see Kernels::quantize_row.
template <class S>
static float QuantizeRow(const float* x, int64_t n, uint8_t* q) {
  typename S::F magnitude = S::Zero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) magnitude = S::MaxMagnitude(magnitude, S::Load(x + i));
  magnitude = S::MaxMagnitude(magnitude, S::LoadPartial(x + i, n - i));
  const int32_t bits = S::MaxLaneBits(magnitude);
  const int32_t padded = static_cast<int32_t>((n + 3) / 4 * 4 - i);
  if (bits == 0 || bits >= 0x7f800000) {
    for (int64_t j = 0; j < i + padded; ++j) q[j] = 128;
    return bits == 0 ? 0.0f : __builtin_nanf("");
  }
  float max;
  __builtin_memcpy(&max, &bits, sizeof(max));
  // Divided, not multiplied by 127 / max, which overflows for a tiny max.
  const typename S::F divisor = S::Set1(max);
  const typename S::F steps = S::Set1(127.0f);
  for (i = 0; i + 16 <= n; i += 16) {
    S::StoreQuantized(q + i, S::Round(S::Mul(S::Div(S::Load(x + i), divisor), steps)));
  }
  uint8_t last[16];
  S::StoreQuantized(last, S::Round(S::Mul(S::Div(S::LoadPartial(x + i, n - i), divisor), steps)));
  for (int32_t j = 0; j < padded; ++j) q[i + j] = last[j];
  return max / 127.0f;
}

}  // namespace weft::cpu
