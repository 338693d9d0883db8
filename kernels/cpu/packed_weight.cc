#include "kernels/cpu/packed_weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/panel.h"
#include "kernels/half.h"
#include "kernels/status_macros.h"

namespace weft::cpu {
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

// The rows of several matrices, one below the other.
class StackedRows {
 public:
  explicit StackedRows(absl::Span<const HostMatrix> parts) : parts_(parts) {}

  void Read(int64_t row, float* out) const {
    for (const HostMatrix& part : parts_) {
      if (row < part.rows) return ReadRow(part, row, out);
      row -= part.rows;
    }
  }

 private:
  absl::Span<const HostMatrix> parts_;
};

// Writes one column of a panel: element k of the row goes to [k / group][column][k % group].
template <class T, class Convert>
void ScatterColumn(const float* row, int64_t k, int64_t column, int64_t group, Convert convert, T* panel) {
  for (int64_t i = 0; i < k; ++i) panel[(i / group * kPanel + column) * group + i % group] = convert(row[i]);
}

// Quantises a row into its column of a panel; returns its scale, NaN when the row holds anything that is not finite.
float PackInt8Column(const float* row, int64_t k, int64_t column, char* panel) {
  float max = 0;
  for (int64_t i = 0; i < k; ++i) {
    if (!std::isfinite(row[i])) return NAN;
    max = std::max(max, std::fabs(row[i]));
  }
  int32_t sum = 0;
  const auto quantize = [&](float w) {
    const auto q = max == 0 ? int8_t{0} : static_cast<int8_t>(std::nearbyint(w / max * 127.0f));
    sum += q;
    return q;
  };
  ScatterColumn(row, k, column, 4, quantize, reinterpret_cast<int8_t*>(panel));
  const int64_t weights = PanelBytes(DType::kI8, k) - kPanel * 4;
  reinterpret_cast<int32_t*>(panel + weights)[column] = 128 * sum;
  return max / 127.0f;
}

// Returns kI8's scale, else 1.
float PackColumn(const float* row, int64_t k, int64_t column, DType dtype, char* panel) {
  switch (dtype) {
    case DType::kF32:
      ScatterColumn(
          row, k, column, 1, [](float f) { return f; }, reinterpret_cast<float*>(panel));
      return 1;
    case DType::kF16:
      ScatterColumn(row, k, column, 1, F32ToF16, reinterpret_cast<uint16_t*>(panel));
      return 1;
    case DType::kBF16:
      ScatterColumn(row, k, column, 2, F32ToBF16, reinterpret_cast<uint16_t*>(panel));
      return 1;
    case DType::kI8:
      return PackInt8Column(row, k, column, panel);
  }
  return 1;
}

absl::Status CheckParts(absl::Span<const HostMatrix> parts, absl::Span<const float> bias, DType dtype) {
  if (parts.empty()) return absl::InvalidArgumentError("a weight needs at least one part");
  int64_t rows = 0;
  for (const HostMatrix& part : parts) {
    if (part.dtype == DType::kI8) return absl::InvalidArgumentError("a host matrix can't be int8");
    if (part.cols != parts[0].cols) {
      return absl::InvalidArgumentError(absl::StrCat("parts of ", parts[0].cols, " and ", part.cols, " columns"));
    }
    rows += part.rows;
  }
  if (!bias.empty() && static_cast<int64_t>(bias.size()) != rows) {
    return absl::InvalidArgumentError(absl::StrCat("a bias of ", bias.size(), " for ", rows, " rows"));
  }
  if (dtype == DType::kI8 && parts[0].cols > kMaxInt8Inputs) {
    return absl::InvalidArgumentError(absl::StrCat("int8 weights of ", parts[0].cols, " inputs, more than 65536"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Weight> AllocateWeight(int64_t n, int64_t k, absl::Span<const float> bias, DType dtype) {
  Weight weight;
  weight.dtype = dtype;
  weight.out_features = n;
  weight.in_features = k;
  const int64_t panels = NumPanels(n);
  ASSIGN_OR_RETURN(weight.data, AllocateMemory(static_cast<size_t>(panels * PanelBytes(dtype, k))));
  if (dtype == DType::kI8) {
    ASSIGN_OR_RETURN(weight.scale, AllocateMemory(static_cast<size_t>(panels * kPanel) * sizeof(float)));
  }
  if (!bias.empty()) {
    ASSIGN_OR_RETURN(weight.bias, AllocateMemory(static_cast<size_t>(panels * kPanel) * sizeof(float)));
    std::copy(bias.begin(), bias.end(), weight.bias.As<float>());
  }
  return weight;
}

}  // namespace

absl::StatusOr<Weight> PackWeight(absl::Span<const HostMatrix> parts, absl::Span<const float> bias, DType dtype,
                                  ThreadPool& pool) {
  RETURN_IF_ERROR(CheckParts(parts, bias, dtype));
  int64_t n = 0;
  for (const HostMatrix& part : parts) n += part.rows;
  const int64_t k = parts[0].cols;
  ASSIGN_OR_RETURN(Weight weight, AllocateWeight(n, k, bias, dtype));

  const StackedRows rows(parts);
  std::vector<std::vector<float>> row_of_thread(static_cast<size_t>(pool.num_threads()));
  std::atomic<int64_t> first_bad_row{n};
  pool.ParallelFor(NumPanels(n), [&](int64_t panel, int thread) {
    std::vector<float>& row = row_of_thread[static_cast<size_t>(thread)];
    row.resize(static_cast<size_t>(k));
    char* const data = weight.data.As<char>() + panel * PanelBytes(dtype, k);
    for (int64_t i = panel * kPanel; i < std::min(n, (panel + 1) * kPanel); ++i) {
      rows.Read(i, row.data());
      const float scale = PackColumn(row.data(), k, i % kPanel, dtype, data);
      if (dtype == DType::kI8) weight.scale.As<float>()[i] = scale;
      int64_t bad = first_bad_row.load();
      while (std::isnan(scale) && i < bad && !first_bad_row.compare_exchange_weak(bad, i)) {
      }
    }
  });
  if (first_bad_row.load() < n) {
    return absl::InvalidArgumentError(
        absl::StrCat("row ", first_bad_row.load(), " is not finite, so has no int8 form"));
  }
  return weight;
}

void UnpackRow(const Weight& weight, int64_t n, float* out) {
  const int64_t k = weight.in_features;
  const int64_t group = PanelGroup(weight.dtype);
  const char* const panel = weight.data.As<char>() + n / kPanel * PanelBytes(weight.dtype, k);
  const auto at = [&](int64_t i) { return (i / group * kPanel + n % kPanel) * group + i % group; };
  switch (weight.dtype) {
    case DType::kF32:
      for (int64_t i = 0; i < k; ++i) out[i] = reinterpret_cast<const float*>(panel)[at(i)];
      return;
    case DType::kF16:
      for (int64_t i = 0; i < k; ++i) out[i] = F16ToF32(reinterpret_cast<const uint16_t*>(panel)[at(i)]);
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < k; ++i) out[i] = BF16ToF32(reinterpret_cast<const uint16_t*>(panel)[at(i)]);
      return;
    case DType::kI8:
      for (int64_t i = 0; i < k; ++i) {
        out[i] = static_cast<float>(reinterpret_cast<const int8_t*>(panel)[at(i)]) * weight.scale.As<float>()[n];
      }
      return;
  }
}

}  // namespace weft::cpu
