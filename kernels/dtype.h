// The types that elements of tensors and weights have.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft {

enum class DType : uint8_t { kF32, kBF16, kF16, kI8 };

constexpr bool IsDType(int64_t number) { return number >= 0 && number <= static_cast<int64_t>(DType::kI8); }

constexpr size_t DTypeBytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kI8:
      return 1;
  }
  return 0;
}

}  // namespace weft
