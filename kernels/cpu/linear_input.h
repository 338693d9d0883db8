// A linear's input as its kernel wants it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace weft::cpu {

// Which rows of x go into a linear: rows[0 .. count), or the first `count` where rows is null.
struct LinearRows {
  Tensor x;
  const int32_t* rows = nullptr;  // [count]
  int64_t count = 0;
};

// The operands of LinearArgs.
struct LinearInput {
  const void* x = nullptr;
  int64_t stride = 0;              // elements
  const float* x_scale = nullptr;  // [count], for kI8

  // From row `begin` on.
  LinearInput From(int64_t begin) const {
    const int64_t element = x_scale == nullptr ? sizeof(float) : 1;
    return {static_cast<const char*>(x) + begin * stride * element, stride,
            x_scale == nullptr ? nullptr : x_scale + begin};
  }
};

// Bytes that PrepareInput needs; 0 where the rows can be used as they are.
size_t LinearInputBytes(const LinearRows& rows, DType weights);

// Gathers the rows, and quantises them for kI8 weights, into `memory`, which is 64-byte aligned.
LinearInput PrepareInput(Context& context, const LinearRows& rows, DType weights, void* memory);

}  // namespace weft::cpu
