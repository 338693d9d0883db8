// What attention and the ops before it are told, as plain data.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace weft {

// Rotary position embedding (RoFormer, arXiv 2104.09864), half-rotation layout as Hugging Face stores it: element i
// pairs with i + rotary_dim / 2. The table is made once, so every scaling rule ends up here as data.
struct RotaryTable {
  Buffer cos_sin;      // float [max_positions, rotary_dim]: cos for rotary_dim / 2 frequencies, then sin
  int rotary_dim = 0;  // <= head_dim; the rest of a head passes through
  int64_t max_positions = 0;
};

struct AttentionHeads {
  int num_heads = 0;     // Hq
  int num_kv_heads = 0;  // Hkv; divides num_heads
  int head_dim = 0;      // D
};

// Per-head RMS norm of queries and keys before the rotation (Qwen3). Null: none.
struct QkNorm {
  const float* q_weight = nullptr;  // [D]
  const float* k_weight = nullptr;  // [D]
  float eps = 0;
};

struct AttentionArgs {
  AttentionHeads heads;
  float scale = 1;             // of q . k
  int64_t sliding_window = 0;  // a token sees itself and the window - 1 tokens before it; 0: all before it
};

}  // namespace weft
