#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

namespace weft {

// What one template may use. The counts are deterministic: the same template and inputs end the same way on every
// machine.
struct TemplateLimits {
  int64_t max_steps = 1'000'000;       // nodes evaluated, items made, text touched (see TemplateBudget)
  size_t output_base_bytes = 1 << 20;  // a text, and so the output, holds at most base + factor * input bytes
  size_t output_input_factor = 4;
  int max_depth = 64;  // nesting of the source, of data, and of macro calls
  size_t max_source_bytes = 256 << 10;
};

// The meter of one render. Owned by the render, used by its thread alone.
class TemplateBudget {
 public:
  TemplateBudget(const TemplateLimits& limits, size_t input_bytes)
      : steps_left_(limits.max_steps),
        max_text_bytes_(limits.output_base_bytes + limits.output_input_factor * input_bytes),
        max_depth_(limits.max_depth) {}

  // Pays for `steps` units of work, before or while they are done.
  absl::Status Spend(int64_t steps);

  // Pays for copying, comparing or searching `bytes` of text.
  absl::Status SpendBytes(size_t bytes) { return Spend(static_cast<int64_t>(bytes / 256)); }

  // Pays for walking over the characters of `bytes` of text, which is slower.
  absl::Status SpendChars(size_t bytes) { return Spend(static_cast<int64_t>(bytes / 64)); }

  // Pays for making a text of `bytes`; fails when it is longer than any text may be. Call it before an operation whose
  // result can be much longer than its operands.
  absl::Status SpendText(size_t bytes);

  // The same for a text of `bytes` that grows by `added`: pays for the growth alone.
  absl::Status SpendGrowth(size_t bytes, size_t added);

  int max_depth() const { return max_depth_; }
  size_t max_text_bytes() const { return max_text_bytes_; }

 private:
  int64_t steps_left_;
  size_t max_text_bytes_;
  int max_depth_;
};

}  // namespace weft
