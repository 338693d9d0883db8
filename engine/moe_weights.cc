#include "engine/moe_weights.h"

#include <utility>
#include <vector>

#include "kernels/status_macros.h"

namespace weft {

absl::StatusOr<MoeWeights> LoadMoeWeights(const MoeSpec& spec, const MoeLoadOptions& options, LoadLinear load,
                                          Backend& backend) {
  MoeWeights weights;
  ASSIGN_OR_RETURN(weights.router, load(spec.router, options.gate_dtype));
  std::vector<Weight> gate_up, down;
  for (const MlpSpec& expert : spec.experts) {
    ASSIGN_OR_RETURN(Weight expert_gate_up, load(expert.gate_up, options.dtype));
    ASSIGN_OR_RETURN(Weight expert_down, load(expert.down, options.dtype));
    gate_up.push_back(std::move(expert_gate_up));
    down.push_back(std::move(expert_down));
  }
  ASSIGN_OR_RETURN(weights.gate_up, backend.MakeExpertWeights(std::move(gate_up)));
  ASSIGN_OR_RETURN(weights.down, backend.MakeExpertWeights(std::move(down)));
  if (!spec.shared.has_value()) return weights;
  SharedExpertWeights& shared = weights.shared.emplace();
  ASSIGN_OR_RETURN(shared.gate, load(spec.shared->gate, options.gate_dtype));
  ASSIGN_OR_RETURN(shared.gate_up, load(spec.shared->mlp.gate_up, options.dtype));
  ASSIGN_OR_RETURN(shared.down, load(spec.shared->mlp.down, options.dtype));
  return weights;
}

}  // namespace weft
