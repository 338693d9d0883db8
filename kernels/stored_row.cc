#include "kernels/stored_row.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/half.h"

namespace weft {
namespace {

constexpr int64_t kMaxInt8Inputs = 65536;  // 127 * 255 * 65536 < 2^31

// One row of a host matrix, as floats.
void ReadRow(const HostMatrix& matrix, int64_t row, float* out) {
  const int64_t begin = row * matrix.cols;
  if (matrix.dtype == DType::kF32) {
    std::copy_n(static_cast<const float*>(matrix.data) + begin, matrix.cols, out);
    return;
  }
  const uint16_t* const in = static_cast<const uint16_t*>(matrix.data) + begin;
  if (matrix.dtype == DType::kBF16) {
    std::transform(in, in + matrix.cols, out, BF16ToF32);
  } else {
    std::transform(in, in + matrix.cols, out, F16ToF32);
  }
}

// Nearest even for |x| < 2^22, as std::nearbyint, but a sum that compilers vectorise: 1.5 * 2^23 leaves no fraction.
float RoundToInt(float x) { return x + 12582912.0f - 12582912.0f; }

QuantizedRow QuantizeRow(const float* row, int64_t k, int8_t* out) {
  float max = 0;
  bool finite = true;
  for (int64_t i = 0; i < k; ++i) {
    finite &= std::isfinite(row[i]);
    max = std::max(max, std::fabs(row[i]));
  }
  if (!finite) return {NAN, 0};
  if (max == 0) {
    std::fill_n(out, k, int8_t{0});
    return {0, 0};
  }
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) {
    const auto q = static_cast<int32_t>(RoundToInt(row[i] / max * 127.0f));
    sum += q;
    out[i] = static_cast<int8_t>(q);
  }
  return {max / 127.0f, sum};
}

}  // namespace

int64_t StackedRows::num_rows() const {
  int64_t rows = 0;
  for (const HostMatrix& part : parts_) rows += part.rows;
  return rows;
}

void StackedRows::Read(int64_t row, float* out) const {
  for (const HostMatrix& part : parts_) {
    if (row < part.rows) return ReadRow(part, row, out);
    row -= part.rows;
  }
}

QuantizedRow StoreRow(const float* row, int64_t k, DType dtype, char* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, row, static_cast<size_t>(k) * sizeof(float));
      return {};
    case DType::kF16:
      std::transform(row, row + k, reinterpret_cast<uint16_t*>(out), F32ToF16);
      return {};
    case DType::kBF16:
      std::transform(row, row + k, reinterpret_cast<uint16_t*>(out), F32ToBF16);
      return {};
    case DType::kI8:
      return QuantizeRow(row, k, reinterpret_cast<int8_t*>(out));
  }
  return {};
}

absl::Status CheckParts(absl::Span<const HostMatrix> parts, absl::Span<const float> bias, DType dtype) {
  if (parts.empty()) return absl::InvalidArgumentError("a weight needs at least one part");
  for (const HostMatrix& part : parts) {
    if (part.dtype == DType::kI8) return absl::InvalidArgumentError("a host matrix can't be int8");
    if (part.cols != parts[0].cols) {
      return absl::InvalidArgumentError(absl::StrCat("parts of ", parts[0].cols, " and ", part.cols, " columns"));
    }
  }
  const int64_t rows = StackedRows(parts).num_rows();
  if (!bias.empty() && static_cast<int64_t>(bias.size()) != rows) {
    return absl::InvalidArgumentError(absl::StrCat("a bias of ", bias.size(), " for ", rows, " rows"));
  }
  if (dtype == DType::kI8 && parts[0].cols > kMaxInt8Inputs) {
    return absl::InvalidArgumentError(absl::StrCat("int8 weights of ", parts[0].cols, " inputs, more than 65536"));
  }
  return absl::OkStatus();
}

absl::Status NotFinite(int64_t row) {
  return absl::InvalidArgumentError(absl::StrCat("row ", row, " is not finite, so has no int8 form"));
}

}  // namespace weft
