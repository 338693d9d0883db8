// Rotation into the paged cache, and attention over it, on all threads.
#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/context.h"

namespace weft::cpu {

// See Backend::RotateAndAppend.
void RotateAndAppend(Context& context, Tensor qkv, const AttentionHeads& heads, const QkNorm& norm,
                     const RotaryTable& rotary, const RowMap& rows, const KvView& kv);

// See Backend::Attention.
void Attention(Context& context, Tensor qkv, const AttentionArgs& args, const RowMap& rows, const KvView& kv,
               Tensor out);

}  // namespace weft::cpu
