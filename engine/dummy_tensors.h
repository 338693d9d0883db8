// Made-up weights, for measuring real shapes without a checkpoint.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace weft {

// Fills `out` with the elements of a tensor from `first` on: BF16 numbers, normal with standard deviation 0.02, each a
// pure function of (seed, name, its place). One core makes about 10^9 a second, so that memory and not arithmetic
// bounds a start.
void FillDummyTensor(uint64_t seed, absl::string_view name, uint64_t first, absl::Span<uint16_t> out);

}  // namespace weft
