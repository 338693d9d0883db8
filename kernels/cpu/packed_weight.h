// How weights get into the layout of panel.h, and out of it.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/tensor.h"

namespace weft::cpu {

// Packs the rows of `parts`, one below the other, as Backend::MakeWeight says. Errors: InvalidArgument for parts of
// different widths, a bias of the wrong length, a kI8 part, or a kI8 result of weights that are not finite or of more
// than 65536 inputs (whose integer sums could overflow); ResourceExhausted.
absl::StatusOr<Weight> PackWeight(absl::Span<const HostMatrix> parts, absl::Span<const float> bias, DType dtype,
                                  ThreadPool& pool);

// out[k] = W[n, k], out: [in_features].
void UnpackRow(const Weight& weight, int64_t n, float* out);

}  // namespace weft::cpu
