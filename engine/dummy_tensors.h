// Made-up weights, for measuring real shapes without a checkpoint.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace weft {

// Fills `out` with BF16 numbers, normal with standard deviation 0.02: a pure function of (seed, name). One core makes
// about 10^9 a second, so that memory and not arithmetic bounds a start.
void FillDummyTensor(uint64_t seed, absl::string_view name, absl::Span<uint16_t> out);

}  // namespace weft
