// A mixture of experts in place of the MLP: routing, the experts on this rank, and their weighted sum.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model_config.h"
#include "engine/moe_weights.h"
#include "engine/parallel_plan.h"
#include "kernels/backend.h"
#include "kernels/experts.h"
#include "kernels/tensor.h"

namespace weft {

// How many tokens each expert of a rank has got since the engine started.
struct ExpertLoad {
  ExpertRange here;
  int num_layers = 0;               // of the rank
  std::vector<int64_t> num_tokens;  // [num_layers, here.count]; zeros in dense layers
};

// T tokens in the step, H hidden size, k experts a token. Owned by a Model, used by its thread only; nothing is
// allocated after Create, and nothing waits for the device: how the tokens fell on the experts stays there.
class MoeMlp {
 public:
  // Room for steps of `max_tokens`. Requires a configuration with experts. Errors: ResourceExhausted.
  static absl::StatusOr<MoeMlp> Create(const ModelConfig& config, const ParallelPlan& plan, int64_t max_tokens,
                                       Backend& backend);

  // out = this rank's part of the weighted sum of each token's experts, and of the shared expert where `weights` has
  // one; the block's output is the sum over ranks. `layer` counts the rank's, from 0. A token's result depends on that
  // token alone.                                                                               normed, out: [T, H]
  void Run(int layer, const MoeWeights& weights, Tensor normed, Tensor out);

  // Enqueues a copy; `load` is valid after the backend's next Synchronize.
  void CopyLoad(ExpertLoad& load) const;

 private:
  MoeMlp(const MoeConfig& moe, ExpertRange here, int num_layers, Backend& backend)
      : moe_(moe), here_(here), num_layers_(num_layers), backend_(&backend) {}

  void RunShared(const SharedExpertWeights& weights, Tensor normed, Tensor out);
  Tensor View(const Buffer& buffer, int64_t rows, int64_t cols) const {
    return DenseTensor(buffer.data(), backend_->activation_dtype(), rows, cols);
  }

  MoeConfig moe_;
  ExpertRange here_;
  int num_layers_;
  int64_t inner_ = 0;  // columns of each expert
  Backend* backend_;
  Buffer logits_;                   // [T, num_experts]
  Buffer ids_, weights_;            // see TokenExperts
  Buffer begin_, tokens_, places_;  // see ExpertGroups
  Buffer load_;                     // see ExpertLoad
  Buffer gate_up_, gated_, down_;   // [T * k, ...] by place; of the shared expert [T, ...]
  Buffer shared_gate_;              // [T, 1]
};

}  // namespace weft
