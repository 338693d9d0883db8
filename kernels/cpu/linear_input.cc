#include "kernels/cpu/linear_input.h"

#include <cstring>

namespace weft::cpu {
namespace {

// Elements from row to row: whole cache lines.
int64_t Stride(const LinearRows& rows, DType weights) {
  const int64_t elements = weights == DType::kI8 ? 64 : 16;
  return (rows.x.cols + elements - 1) / elements * elements;
}

// Of all rows as bytes, without their scales.
size_t RowBytes(const LinearRows& rows, DType weights) {
  const size_t element = weights == DType::kI8 ? 1 : sizeof(float);
  return static_cast<size_t>(rows.count * Stride(rows, weights)) * element;
}

}  // namespace

size_t LinearInputBytes(const LinearRows& rows, DType weights) {
  if (weights == DType::kI8) return RowBytes(rows, weights) + static_cast<size_t>(rows.count) * sizeof(float);
  return rows.rows == nullptr ? 0 : RowBytes(rows, weights);
}

LinearInput PrepareInput(Context& context, const LinearRows& rows, DType weights, void* memory) {
  const Tensor& x = rows.x;
  const bool quantize = weights == DType::kI8;
  if (!quantize && rows.rows == nullptr) return {x.data, x.row_stride, nullptr};
  const int64_t stride = Stride(rows, weights);
  auto* const scale = reinterpret_cast<float*>(static_cast<char*>(memory) + RowBytes(rows, weights));
  ForRows(context, rows.count, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* const row = x.Row<float>(rows.rows == nullptr ? i : rows.rows[i]);
      if (quantize) {
        scale[i] = context.kernels.quantize_row(row, x.cols, static_cast<uint8_t*>(memory) + i * stride);
      } else {
        std::memcpy(static_cast<float*>(memory) + i * stride, row, static_cast<size_t>(x.cols) * sizeof(float));
      }
    }
  });
  return {memory, stride, quantize ? scale : nullptr};
}

}  // namespace weft::cpu
