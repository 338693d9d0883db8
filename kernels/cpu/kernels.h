// The inner loops of the CPU backend, one table of functions for each instruction set.
//
// A kernel is single-threaded, takes raw pointers and sizes, and allocates nothing. The ops' launchers (linear.h,
// attention.h, ...) cut the work into tasks and call these. Every table's kernels are the same templates over another
// vector type (simd_*.h), which all have 16 lanes, so that a reduction has the same tree everywhere.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/tensor.h"

namespace weft::cpu {

// One linear's operands; see packed_weight.h for the layout of `weight`.
struct LinearArgs {
  const void* x = nullptr;         // float [rows, k]; for kI8 weights uint8 [rows, k rounded up to 4], q + 128
  int64_t x_stride = 0;            // elements
  const float* x_scale = nullptr;  // [rows], for kI8
  const char* weight = nullptr;    // panels
  int64_t panel_bytes = 0;
  const float* weight_scale = nullptr;  // [n], for kI8
  const float* bias = nullptr;          // [n], or null
  float* out = nullptr;                 // [rows, n]
  int64_t out_stride = 0;               // elements
  int64_t rows = 0;
  int64_t n = 0;
  int64_t k = 0;
  DType dtype = DType::kF32;  // of weight
};

// Some queries that share a key-value head, against the cached positions of one split.
struct SplitArgs {
  const float* queries = nullptr;  // [num_queries, padded_dim], scaled, zero beyond head_dim
  int num_queries = 0;
  int head_dim = 0;
  int padded_dim = 0;                   // head_dim rounded up to 16
  DType kv_dtype = DType::kF32;         // kF32 or kBF16
  const void* const* keys = nullptr;    // [kSplit] rows [head_dim]; any valid row where no query looks
  const void* const* values = nullptr;  // [kSplit]
  const int* begin = nullptr;           // [num_queries] the query sees positions begin .. end of the split
  const int* end = nullptr;             // [num_queries]
  float* staging = nullptr;             // [kSplit, padded_dim]
  float* scores = nullptr;              // [num_queries, kSplit]
  float* max = nullptr;                 // out [num_queries] of the scores
  float* sum = nullptr;                 // out [num_queries] of exp(score - max); 0 where the query sees nothing
  float* out = nullptr;                 // out [num_queries, padded_dim] sum of exp(score - max) * value
};

// Positions of a sequence that attention reduces in one go, at absolute multiples: part of the fixed order of sums.
inline constexpr int kSplit = 256;

struct Kernels {
  Isa isa;

  // Columns column_begin .. column_end of the output; both multiples of 32, or column_end = n.
  void (*linear)(const LinearArgs& args, int64_t column_begin, int64_t column_end);

  // q[i] = 128 + round(x[i] / scale) with scale = max|x| / 127; q is filled with 128 up to a multiple of 4. Returns the
  // scale: NaN when x holds anything that is not finite.
  float (*quantize_row)(const float* x, int64_t n, uint8_t* q);

  // out = x / sqrt(mean(x^2) + eps) * weight, all [n]; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);

  // x += delta, both [n].
  void (*add)(float* x, const float* delta, int64_t n);

  // x += delta * factor, both [n]; rounded once.
  void (*add_scaled)(float* x, const float* delta, float factor, int64_t n);

  // out = gate / (1 + exp(-gate)) * up, all [n].
  void (*swiglu)(const float* gate, const float* up, int64_t n, float* out);

  // Rotates head[i] with head[i + half] for i < half by the angle of cos_sin: cos [half], then sin [half].
  void (*rotate)(float* head, const float* cos_sin, int64_t half);

  void (*store_bf16)(const float* x, int64_t n, uint16_t* out);

  void (*attend_split)(const SplitArgs& args);

  // Merges a later split's sums into those of the splits before it: both out are [padded_dim].
  void (*merge_split)(float* max, float* sum, float* out, const float* next_max, const float* next_sum,
                      const float* next_out, int padded_dim);

  // out = x * factor, both [n]; out may be x.
  void (*scale)(const float* x, float factor, int64_t n, float* out);

  // The largest of x [n]; NaN if any is.
  float (*max)(const float* x, int64_t n);

  // out = exp((x - max) / temperature), [n]; returns the sum. out may be x.
  double (*exp_weights)(const float* x, int64_t n, float max, float temperature, float* out);
};

// The table for `isa`, which this machine must be able to run.
const Kernels& KernelsFor(Isa isa);

// One source each; the two last exist on x86-64 only.
extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;

}  // namespace weft::cpu
