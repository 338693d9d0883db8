#include "kernels/cuda/matmul.h"

#include <algorithm>

namespace weft::cuda {
namespace {

constexpr int64_t kAlignment = 16;  // bytes; with 4 the library takes slower kernels, and with less none

bool IsAligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % kAlignment == 0; }
bool IsAligned(Element element, int64_t count) { return count * BytesOf(element) % kAlignment == 0; }

std::optional<Element> ElementOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return std::nullopt;  // in TF32 or slowly: our own kernels are exact
    case DType::kBF16:
      return Element::kBF16;
    case DType::kF16:
      return Element::kF16;
    case DType::kI8:
      return Element::kI8;
  }
  return std::nullopt;
}

}  // namespace

int64_t BytesOf(Element element) {
  switch (element) {
    case Element::kF32:
    case Element::kI32:
      return 4;
    case Element::kBF16:
    case Element::kF16:
      return 2;
    case Element::kI8:
      return 1;
  }
  return 1;
}

std::optional<Matmul> MatmulOf(Tensor x, const void* weight, int64_t out_features, const void* out, Element element,
                               int64_t out_stride) {
  const std::optional<Element> in = ElementOf(x.dtype);
  if (!in.has_value() || x.rows == 0) return std::nullopt;
  const bool is_kernel = *in == Element::kI8 ? element == Element::kI32 : element == *in || element == Element::kF32;
  const bool is_aligned = IsAligned(x.data) && IsAligned(weight) && IsAligned(out) && IsAligned(*in, x.cols) &&
                          IsAligned(*in, x.row_stride) && IsAligned(element, out_features) &&
                          IsAligned(element, out_stride);
  if (!is_kernel || !is_aligned) return std::nullopt;
  return Matmul{.a = {*in, x.cols, out_features, x.cols},
                .b = {*in, x.cols, x.rows, x.row_stride},
                .d = {element, out_features, x.rows, out_stride}};
}

}  // namespace weft::cuda
