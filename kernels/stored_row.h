// How rows of a model's matrices are stored in each dtype, whatever layout a device puts them in.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/tensor.h"

namespace weft {

// The rows of several matrices, one below the other.
class StackedRows {
 public:
  explicit StackedRows(absl::Span<const HostMatrix> parts) : parts_(parts) {}

  int64_t num_rows() const;
  // Row `row` as floats. out: [cols]
  void Read(int64_t row, float* out) const;

 private:
  absl::Span<const HostMatrix> parts_;
};

struct QuantizedRow {
  float scale = 1;  // NaN when the row holds anything that is not finite
  int32_t sum = 0;
};

// A row as its elements will be stored, in their order: rounded to nearest even; of kI8, quantised symmetrically.
QuantizedRow StoreRow(const float* row, int64_t k, DType dtype, char* out);

// What Backend::MakeWeight was given. Errors: InvalidArgument for parts of different widths, a bias of the wrong
// length, a kI8 part, or a kI8 result of more than 65536 inputs (whose integer sums could overflow).
absl::Status CheckParts(absl::Span<const HostMatrix> parts, absl::Span<const float> bias, DType dtype);

// InvalidArgument: row `row` has no int8 form.
absl::Status NotFinite(int64_t row);

}  // namespace weft
