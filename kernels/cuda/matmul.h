// A linear as cuBLASLt is told of it: which matrices, transposed how, of which types.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/tensor.h"

namespace weft::cuda {

enum class Element { kF32, kBF16, kF16, kI8, kI32 };
int64_t BytesOf(Element element);

// A matrix in memory, column after column.
struct ColumnMajor {
  Element element = Element::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t ld = 0;  // elements from one column to the next
};

// D = A^T B; sums are I32 where A and B are bytes, else F32. A row-major [m, n] is a column-major [n, m], so A is W
// [in, out], B is x [in, rows] and D is out [out, rows]: nothing is moved.
struct Matmul {
  ColumnMajor a, b, d;

  int64_t num_rows() const { return b.cols; }  // of x
};

// out = x W^T with W dense [out_features, x.cols] of x's type; out is of `element`, `out_stride` elements a row. None:
// an address, a row or a stride is no multiple of 16 bytes, or the types are such that cuBLASLt has no kernel.
std::optional<Matmul> MatmulOf(Tensor x, const void* weight, int64_t out_features, const void* out, Element element,
                               int64_t out_stride);

}  // namespace weft::cuda
