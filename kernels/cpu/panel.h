// The layout of weights on the CPU backend.
//
// Columns of the product (rows of W) go into panels of 32; a panel holds all K inputs of its columns, in the order in
// which the inner loop wants them, so that a linear reads its weights once, in memory order:
//
//   kF32   [N/32][K][32]           one FMA for 16 columns and one k
//   kF16   [N/32][K][32]           the same after a conversion in registers
//   kBF16  [N/32][K/2][32][2]      two k side by side: a shift makes one a float, a mask the other
//   kI8    [N/32][K/4][32][4]      four k side by side: the operand of a dot product of bytes; then int32 [32], 128
//                                  times the sum of each column, which undoes the + 128 of the unsigned activations
//
// N and K are padded with zeros. Scales and biases are padded to whole panels too.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace weft::cpu {

inline constexpr int64_t kPanel = 32;  // columns

// Consecutive inputs of one column that lie side by side.
constexpr int64_t PanelGroup(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
      return 1;
    case DType::kBF16:
      return 2;
    case DType::kI8:
      return 4;
  }
  return 1;
}

constexpr int64_t NumPanels(int64_t n) { return (n + kPanel - 1) / kPanel; }

// Of one panel, the compensation of kI8 included.
constexpr int64_t PanelBytes(DType dtype, int64_t k) {
  const int64_t group = PanelGroup(dtype);
  const int64_t weights = (k + group - 1) / group * group * kPanel * static_cast<int64_t>(DTypeBytes(dtype));
  return dtype == DType::kI8 ? weights + kPanel * 4 : weights;
}

}  // namespace weft::cpu
