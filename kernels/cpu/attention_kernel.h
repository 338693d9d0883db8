// Softmax attention of some queries over one split of cached positions. Cost: 4 head_dim FLOPs for each (query,
// position), and each key and value read from memory once for all queries of the task.
//
// The order of every sum is fixed by absolute positions, so it doesn't matter which queries share the task:
//   score    16 lanes over head_dim, then SumEach's tree
//   sum      16 lanes over the split's positions, then Sum's tree; positions that a query doesn't see add 0
//   out      one chain of FMAs a dimension, over the visible positions in ascending order
//   splits   merged pairwise in ascending order (MergeSplit)
#pragma once

#include <cstdint>

#include "kernels/cpu/exp_kernel.h"
#include "kernels/cpu/kernels.h"

namespace weft::cpu {

// Rows of floats that the inner loops read: the cache itself where it holds floats in whole vectors, else a copy.
// begin .. end: the positions wanted.
template <class S>
static void StageRows(const SplitArgs& args, const void* const* rows, int begin, int end, const float** staged) {
  const bool in_place = args.kv_dtype == DType::kF32 && args.head_dim == args.padded_dim;
  for (int j = begin; j < end; ++j) {
    if (in_place) {
      staged[j] = static_cast<const float*>(rows[j]);
      continue;
    }
    // Positions may share a row (padding does): each gets its own copy, which is simpler than noticing.
    float* const out = args.staging + static_cast<int64_t>(j) * args.padded_dim;
    staged[j] = out;
    for (int d = 0; d < args.padded_dim; d += 16) {
      const int left = args.head_dim - d < 16 ? args.head_dim - d : 16;
      if (args.kv_dtype == DType::kF32) {
        S::Store(out + d, S::LoadPartial(static_cast<const float*>(rows[j]) + d, left));
      } else if (left == 16) {
        S::Store(out + d, S::LoadBf16(static_cast<const uint16_t*>(rows[j]) + d));
      } else {
        uint16_t last[16] = {};
        for (int i = 0; i < left; ++i) last[i] = static_cast<const uint16_t*>(rows[j])[d + i];
        S::Store(out + d, S::LoadBf16(last));
      }
    }
  }
}

// The scores of one query against 16 keys.
template <class S>
static inline typename S::F Score16(const float* query, const float* const* keys, int padded_dim) {
  typename S::F sums[16];
#pragma GCC unroll 16
  for (int group = 0; group < 16; group += S::kDotRows) {
    typename S::F acc[S::kDotRows];
#pragma GCC unroll 16
    for (int j = 0; j < S::kDotRows; ++j) acc[j] = S::Zero();
    for (int d = 0; d < padded_dim; d += 16) {
      const typename S::F q = S::Load(query + d);
#pragma GCC unroll 16
      for (int j = 0; j < S::kDotRows; ++j) acc[j] = S::Fma(q, S::Load(keys[group + j] + d), acc[j]);
    }
#pragma GCC unroll 16
    for (int j = 0; j < S::kDotRows; ++j) sums[group + j] = acc[j];
  }
  return S::SumEach(sums);
}

// Turns the scores [first, last) of one query (both multiples of 16) into exp(score - max), 0 where it doesn't look.
template <class S>
static void SoftmaxRow(float* scores, int first, int last, int begin, int end, float* max_out, float* sum_out) {
  using F = typename S::F;
  for (int j = first; j < begin && j < last; ++j) scores[j] = -__builtin_inff();
  for (int j = end; j < last; ++j) scores[j] = -__builtin_inff();
  F max = S::Set1(-__builtin_inff());
  for (int j = first; j < last; j += 16) max = S::Max(S::Load(scores + j), max);
  *max_out = S::MaxLane(max);
  const F shift = S::Set1(*max_out);
  F sum = S::Zero();
  for (int j = first; j < last; j += 16) {
    const F w = Exp<S>(S::Sub(S::Load(scores + j), shift));
    S::Store(scores + j, w);
    sum = S::Add(sum, w);
  }
  *sum_out = S::Sum(sum);
}

// out[q][d] += weights[q][j] * values[j][d] for j in begin .. end, ascending, 16 kVecs dimensions of kQueries queries.
template <class S, int kQueries, int kVecs>
static inline void AddValues(const float* weights, const float* const* values, int64_t d, int begin, int end,
                             float* out, int64_t out_stride) {
  typename S::F acc[kQueries][kVecs];
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) acc[q][v] = S::Load(out + q * out_stride + d + 16 * v);
  }
  for (int j = begin; j < end; ++j) {
    const float* const value = values[j] + d;
#pragma GCC unroll 8
    for (int q = 0; q < kQueries; ++q) {
      const typename S::F w = S::Set1(weights[q * kSplit + j]);
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) acc[q][v] = S::Fma(w, S::Load(value + 16 * v), acc[q][v]);
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) S::Store(out + q * out_stride + d + 16 * v, acc[q][v]);
  }
}

// The same for all dimensions.
template <class S, int kQueries>
static void AddValuesAll(const SplitArgs& args, const float* const* values, int query, int begin, int end) {
  const float* const weights = args.scores + static_cast<int64_t>(query) * kSplit;
  float* const out = args.out + static_cast<int64_t>(query) * args.padded_dim;
  int64_t d = 0;
  for (; d + 16 * S::kPvVecs <= args.padded_dim; d += 16 * S::kPvVecs) {
    AddValues<S, kQueries, S::kPvVecs>(weights, values, d, begin, end, out, args.padded_dim);
  }
  for (; d < args.padded_dim; d += 16) {
    AddValues<S, kQueries, 1>(weights, values, d, begin, end, out, args.padded_dim);
  }
}

// Positions begin .. end for kQueries queries: together where all of them look, else each on its own, so that a value
// that a query doesn't see is never multiplied, not even by 0.
template <class S, int kQueries>
static void AddValuesOf(const SplitArgs& args, const float* const* values, int query, int begin, int end) {
  int common_begin = begin;
  int common_end = end;
  for (int q = query; q < query + kQueries; ++q) {
    if (args.begin[q] > common_begin) common_begin = args.begin[q];
    if (args.end[q] < common_end) common_end = args.end[q];
  }
  const bool together = common_begin < common_end;
  for (int q = query; q < query + kQueries; ++q) {
    const int from = args.begin[q] > begin ? args.begin[q] : begin;
    const int until = args.end[q] < end ? args.end[q] : end;
    const int stop = together && common_begin < until ? common_begin : until;
    if (from < stop) AddValuesAll<S, 1>(args, values, q, from, stop);
  }
  if (!together) return;
  AddValuesAll<S, kQueries>(args, values, query, common_begin, common_end);
  for (int q = query; q < query + kQueries; ++q) {
    const int until = args.end[q] < end ? args.end[q] : end;
    if (common_end < until) AddValuesAll<S, 1>(args, values, q, common_end, until);
  }
}

// See Kernels::attend_split.
template <class S>
static void AttendSplit(const SplitArgs& args) {
  int first = kSplit;
  int last = 0;
  for (int q = 0; q < args.num_queries; ++q) {
    if (args.begin[q] < first) first = args.begin[q];
    if (args.end[q] > last) last = args.end[q];
  }
  first = first / 16 * 16;
  last = (last + 15) / 16 * 16;
  const float* rows[kSplit];
  StageRows<S>(args, args.keys, first, last, rows);
  for (int j = first; j < last; j += 16) {
    for (int q = 0; q < args.num_queries; ++q) {
      const float* const query = args.queries + static_cast<int64_t>(q) * args.padded_dim;
      S::Store(args.scores + static_cast<int64_t>(q) * kSplit + j, Score16<S>(query, rows + j, args.padded_dim));
    }
  }
  for (int q = 0; q < args.num_queries; ++q) {
    float* const out = args.out + static_cast<int64_t>(q) * args.padded_dim;
    for (int d = 0; d < args.padded_dim; d += 16) S::Store(out + d, S::Zero());
    args.sum[q] = 0;
    if (args.begin[q] >= args.end[q]) continue;
    float* const scores = args.scores + static_cast<int64_t>(q) * kSplit;
    SoftmaxRow<S>(scores, first, last, args.begin[q], args.end[q], args.max + q, args.sum + q);
  }
  constexpr int kValuesBlock = 64;  // values stay in the first-level cache while all queries pass over them
  StageRows<S>(args, args.values, first, last, rows);
  for (int begin = first; begin < last; begin += kValuesBlock) {
    const int end = last - begin < kValuesBlock ? last : begin + kValuesBlock;
    int q = 0;
    for (; q + S::kPvQueries <= args.num_queries; q += S::kPvQueries) {
      AddValuesOf<S, S::kPvQueries>(args, rows, q, begin, end);
    }
    for (; q < args.num_queries; ++q) AddValuesOf<S, 1>(args, rows, q, begin, end);
  }
}

// See Kernels::merge_split.
template <class S>
static void MergeSplit(float* max, float* sum, float* out, const float* next_max, const float* next_sum,
                       const float* next_out, int padded_dim) {
  using F = typename S::F;
  if (*next_sum == 0) return;  // sees nothing there
  if (*sum == 0) {             // nothing before
    *max = *next_max;
    *sum = *next_sum;
    for (int d = 0; d < padded_dim; d += 16) S::Store(out + d, S::Load(next_out + d));
    return;
  }
  const float merged = *next_max > *max ? *next_max : *max;
  const F old_factor = Exp<S>(S::Set1(*max - merged));
  const F next_factor = Exp<S>(S::Set1(*next_max - merged));
  for (int d = 0; d < padded_dim; d += 16) {
    S::Store(out + d, S::Fma(S::Load(next_out + d), next_factor, S::Mul(S::Load(out + d), old_factor)));
  }
  float factors[2][16];
  S::Store(factors[0], old_factor);
  S::Store(factors[1], next_factor);
  *sum = *sum * factors[0][0] + *next_sum * factors[1][0];
  *max = merged;
}

}  // namespace weft::cpu
