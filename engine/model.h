// The decoder forward pass, written once in Backend ops. Families differ by the fields of ModelConfig.
#pragma once

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/kv_cache.h"
#include "engine/model_config.h"
#include "engine/moe_mlp.h"
#include "engine/step_input.h"
#include "engine/weights.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace weft {

// T tokens in the step, H hidden size, R tokens to be drawn or scored. Tensors it returns live until its next call.
// Owned by a Worker, used by its thread only; nothing is allocated after Create.
class Model {
 public:
  // Allocates the activations of the largest step. Errors: ResourceExhausted. The weights are shared by the models of
  // data-parallel replicas on one device's memory, and only read.
  static absl::StatusOr<Model> Create(const ModelConfig& config, std::shared_ptr<const ModelWeights> weights,
                                      const EngineLimits& limits, Backend& backend);

  Tensor Embed(const StepInput& input);                                              // [T, H]
  Tensor RunLayers(const StepInput& input, Tensor hidden, const KvCache& kv_cache);  // [T, H], after the final norm
  Tensor Logits(const StepInput& input, Tensor hidden);                              // [R, vocab]

  // Null for a dense model.
  const MoeMlp* moe() const { return moe_.has_value() ? &*moe_ : nullptr; }

 private:
  Model(const ModelConfig& config, std::shared_ptr<const ModelWeights> weights, Backend& backend);

  Tensor Attention(const StepInput& input, int layer, Tensor normed, const KvView& kv);  // [T, H]
  Tensor Mlp(int layer, Tensor normed);                                                  // [T, H]
  static Tensor View(const Buffer& buffer, int64_t rows, int64_t cols) {
    return DenseTensor(buffer.data(), DType::kF32, rows, cols);
  }

  ModelConfig config_;
  std::shared_ptr<const ModelWeights> weights_;  // see Create
  Backend* backend_;
  AttentionHeads heads_;
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
