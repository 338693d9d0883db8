#include "kernels/cpu/packed_weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/panel.h"
#include "kernels/half.h"
#include "kernels/status_macros.h"
#include "kernels/stored_row.h"

namespace weft::cpu {
namespace {

// Group g of each row goes to panel[g][row]. Unit: as large as a group, whose elements stay side by side.
template <class Unit>
void Interleave(const char* rows, size_t row_bytes, int64_t num_rows, int64_t num_groups, char* panel) {
  for (int64_t g = 0; g < num_groups; ++g) {
    Unit* const out = reinterpret_cast<Unit*>(panel) + g * kPanel;
    for (int64_t row = 0; row < num_rows; ++row) {
      std::memcpy(&out[row], rows + static_cast<size_t>(row) * row_bytes + static_cast<size_t>(g) * sizeof(Unit),
                  sizeof(Unit));
    }
  }
}

// Packs panels of one weight: one thread's.
class PanelPacker {
 public:
  PanelPacker(int64_t k, DType dtype)
      : k_(k),
        dtype_(dtype),
        num_groups_((k + PanelGroup(dtype) - 1) / PanelGroup(dtype)),
        group_bytes_(static_cast<size_t>(PanelGroup(dtype)) * DTypeBytes(dtype)),
        // One more cache line, so that the rows of a width of 2^n don't all fall into the same set of the cache.
        row_bytes_((static_cast<size_t>(num_groups_) * group_bytes_ + 63) / 64 * 64 + 64),
        row_(static_cast<size_t>(k)),
        rows_(row_bytes_ * kPanel) {}  // zeros, also behind the last element of a row

  // scales: of these rows; read: row i as floats. Returns the first row that has no int8 form, or num_rows.
  template <typename ReadFloats>
  int64_t Pack(int64_t num_rows, ReadFloats read, char* panel, float* scales) {
    int64_t first_bad = num_rows;
    auto* const sums = reinterpret_cast<int32_t*>(panel + PanelBytes(dtype_, k_) - kPanel * 4);
    for (int64_t row = 0; row < num_rows; ++row) {
      read(row, row_.data());
      const QuantizedRow quantized = StoreRow(row_.data(), k_, dtype_, &rows_[static_cast<size_t>(row) * row_bytes_]);
      if (dtype_ != DType::kI8) continue;
      scales[row] = quantized.scale;
      sums[row] = 128 * quantized.sum;
      if (std::isnan(quantized.scale)) first_bad = std::min(first_bad, row);
    }
    if (group_bytes_ == 2) {
      Interleave<uint16_t>(rows_.data(), row_bytes_, num_rows, num_groups_, panel);
    } else {
      Interleave<uint32_t>(rows_.data(), row_bytes_, num_rows, num_groups_, panel);
    }
    return first_bad;
  }

 private:
  const int64_t k_;
  const DType dtype_;
  const int64_t num_groups_;
  const size_t group_bytes_;
  const size_t row_bytes_;
  std::vector<float> row_;
  std::vector<char> rows_;  // [kPanel, row_bytes]
};

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
  const StackedRows rows(parts);
  const int64_t n = rows.num_rows(), k = parts[0].cols;
  ASSIGN_OR_RETURN(Weight weight, AllocateWeight(n, k, bias, dtype));

  std::vector<std::optional<PanelPacker>> packer_of_thread(static_cast<size_t>(pool.num_threads()));
  std::atomic<int64_t> first_bad_row{n};
  pool.ParallelFor(NumPanels(n), [&](int64_t panel, int thread) {
    std::optional<PanelPacker>& packer = packer_of_thread[static_cast<size_t>(thread)];
    if (!packer.has_value()) packer.emplace(k, dtype);
    const int64_t first = panel * kPanel;
    const int64_t num_rows = std::min(n - first, kPanel);
    char* const data = weight.data.As<char>() + panel * PanelBytes(dtype, k);
    float* const scales = dtype == DType::kI8 ? weight.scale.As<float>() + first : nullptr;
    const auto read = [&](int64_t row, float* out) { rows.Read(first + row, out); };
    const int64_t bad_row = packer->Pack(num_rows, read, data, scales);
    if (bad_row == num_rows) return;
    int64_t bad = first_bad_row.load();
    while (first + bad_row < bad && !first_bad_row.compare_exchange_weak(bad, first + bad_row)) {
    }
  });
  if (first_bad_row.load() < n) return NotFinite(first_bad_row.load());
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
