// Norm and rotation of queries and keys, and the write of keys and values into the paged cache. Cost: reads and writes
// (Hq + 2 Hkv) D floats a token.
#include <cstring>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/kv_address.h"

namespace weft::cpu {
namespace {

// Writes the head [D] of one token to its place.
void Append(const Kernels& kernels, const float* head, DType dtype, int head_dim, void* cache, int64_t offset) {
  if (dtype == DType::kBF16) {
    kernels.store_bf16(head, head_dim, static_cast<uint16_t*>(cache) + offset);
  } else {
    std::memcpy(static_cast<float*>(cache) + offset, head, static_cast<size_t>(head_dim) * sizeof(float));
  }
}

}  // namespace

void RotateAndAppend(Context& context, Tensor qkv, const AttentionHeads& heads, const QkNorm& norm,
                     const RotaryTable& rotary, const RowMap& rows, const KvView& kv) {
  const Kernels& kernels = context.kernels;
  const int dim = heads.head_dim;
  const auto norm_and_rotate = [&](float* head, const float* weight, const float* cos_sin) {
    if (weight != nullptr) kernels.rms_norm(head, weight, norm.eps, dim, head);
    kernels.rotate(head, cos_sin, rotary.rotary_dim / 2);
  };
  ForRows(context, rows.num_tokens, qkv.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int row = RowOfToken(rows, t);
      const int64_t position = rows.positions[t];
      const float* const cos_sin = rotary.cos_sin.As<float>() + position * rotary.rotary_dim;
      float* head = qkv.Row<float>(t);
      for (int h = 0; h < heads.num_heads; ++h, head += dim) norm_and_rotate(head, norm.q_weight, cos_sin);
      for (int h = 0; h < heads.num_kv_heads; ++h, head += dim) {
        norm_and_rotate(head, norm.k_weight, cos_sin);
        Append(kernels, head, kv.dtype, dim, kv.keys, KvOffset(kv, rows, row, position, h));
      }
      for (int h = 0; h < heads.num_kv_heads; ++h, head += dim) {
        Append(kernels, head, kv.dtype, dim, kv.values, KvOffset(kv, rows, row, position, h));
      }
    }
  });
}

}  // namespace weft::cpu
