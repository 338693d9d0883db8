// The same linear of several experts, each on its own rows, on all threads.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/context.h"
#include "kernels/experts.h"
#include "kernels/tensor.h"

namespace weft::cpu {

// See Backend::MakeExpertWeights.
absl::StatusOr<ExpertWeights> MakeExpertWeights(std::vector<Weight> experts);

// See Backend::GroupedLinear.
void GroupedLinear(Context& context, Tensor x, const int32_t* rows, const int32_t* begin, const ExpertWeights& weights,
                   Tensor out);

}  // namespace weft::cpu
