// The decoder forward pass, written once in Backend ops. Families differ by the fields of ModelConfig; ranks by their
// plan: which layers they have, and which heads and columns of each.
#pragma once

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/kv_cache.h"
#include "engine/model_config.h"
#include "engine/moe_mlp.h"
#include "engine/parallel_plan.h"
#include "engine/step_input.h"
#include "engine/tensor_parallel.h"
#include "engine/weights.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace weft {

// T tokens in the step, H hidden size, R tokens to be drawn or scored. Tensors it returns live until its next call.
// Owned by a Worker, used by its thread only; nothing is allocated after Create.
class Model {
 public:
  // Allocates the activations of the largest step. Errors: ResourceExhausted. The weights are those of `plan`, shared
  // by the models of data-parallel replicas on one device's memory, and only read.
  static absl::StatusOr<Model> Create(const ModelConfig& config, const ParallelPlan& plan,
                                      std::shared_ptr<const ModelWeights> weights, const EngineLimits& limits,
                                      const TensorParallel& tensor_parallel, Backend& backend);

  // The residual stream, [T, H]: where a stage that isn't the first puts what it receives.
  Tensor Hidden(const StepInput& input) const { return Floats(hidden_, input.num_tokens(), config_.hidden_size); }
  Tensor Embed(const StepInput& input);  // the first stage: [T, H]
  // This stage's layers. [T, H]: the residual stream, or, of the last stage, its final norm.
  Tensor RunLayers(const StepInput& input, Tensor hidden, const KvCache& kv_cache);
  Tensor Logits(const StepInput& input, Tensor hidden);  // the last stage: [R, vocab of the rank]

  // All of the stage: what it sends on, [T, H], or, of the last stage, logits [R, vocab of the rank].
  Tensor Forward(const StepInput& input, const KvCache& kv_cache);

  const ModelWeights& weights() const { return *weights_; }
  // Null for a dense model.
  const MoeMlp* moe() const { return moe_.has_value() ? &*moe_ : nullptr; }

 private:
  Model(const ModelConfig& config, const ParallelPlan& plan, std::shared_ptr<const ModelWeights> weights,
        const TensorParallel& tensor_parallel, Backend& backend);

  Tensor Attention(const StepInput& input, int layer, Tensor normed, const KvView& kv);  // [T, H]
  Tensor Mlp(int layer, Tensor normed);                                                  // [T, H]
  Tensor LogitsOf(const StepInput& input) const {
    return Floats(logits_, input.num_samples(), weights_->output_head().out_features);
  }
  Tensor View(const Buffer& buffer, int64_t rows, int64_t cols) const {
    return DenseTensor(buffer.data(), backend_->activation_dtype(), rows, cols);
  }
  static Tensor Floats(const Buffer& buffer, int64_t rows, int64_t cols) {
    return DenseTensor(buffer.data(), DType::kF32, rows, cols);
  }

  ModelConfig config_;
  ParallelPlan plan_;
  std::shared_ptr<const ModelWeights> weights_;  // see Create
  TensorParallel tensor_parallel_;
  Backend* backend_;
  AttentionHeads heads_;  // of the rank, as all sizes below
  RotaryTable rotary_;
  Buffer hidden_, normed_, delta_;  // [T, H]: the residual stream, its norm, what a block adds to it
  Buffer qkv_;                      // [T, (Hq + 2 Hkv) * D]
  Buffer attention_;                // [T, Hq * D]
  Buffer gate_up_;                  // [T, 2 * intermediate], where a layer has an MLP
  Buffer gated_;                    // [T, intermediate], likewise
  std::optional<MoeMlp> moe_;
  Buffer sampled_;  // [R, H]
  Buffer logits_;   // [R, vocab]
};

}  // namespace weft
