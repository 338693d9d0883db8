// The weights of one layer's experts on one rank.
#pragma once

#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "engine/tensor_list.h"
#include "kernels/backend.h"
#include "kernels/dtype.h"
#include "kernels/experts.h"
#include "kernels/tensor.h"

namespace weft {

// The expert that every token goes to, weighed by the sigmoid of its gate.
struct SharedExpertWeights {
  Weight gate;     // [1, hidden]
  Weight gate_up;  // [2 * shared intermediate, hidden]: gate's rows, then up's
  Weight down;     // [hidden, shared intermediate]
};

struct MoeWeights {
  Weight router;          // [num_experts, hidden]: of all experts, wherever they are
  ExpertWeights gate_up;  // of those on this rank, [2 * intermediate, hidden] each
  ExpertWeights down;     // [hidden, intermediate] each
  std::optional<SharedExpertWeights> shared;
};

struct MoeLoadOptions {
  DType dtype = DType::kF32;       // of the experts
  DType gate_dtype = DType::kF32;  // of the router and the shared expert's gate, which choose and weigh
};

// Puts one linear onto the device.
using LoadLinear = absl::FunctionRef<absl::StatusOr<Weight>(const LinearSpec&, DType)>;

// Loads one linear after the other. Errors: those of `load` and of Backend::MakeExpertWeights.
absl::StatusOr<MoeWeights> LoadMoeWeights(const MoeSpec& spec, const MoeLoadOptions& options, LoadLinear load,
                                          Backend& backend);

}  // namespace weft
