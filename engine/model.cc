#include "engine/model.h"

#include <cmath>
#include <utility>
#include <vector>

#include "engine/rotary.h"
#include "kernels/status_macros.h"

namespace weft {

Model::Model(const ModelConfig& config, std::shared_ptr<const ModelWeights> weights, Backend& backend)
    : config_(config),
      weights_(std::move(weights)),
      backend_(&backend),
      heads_{config.num_heads, config.num_kv_heads, config.head_dim} {}

absl::StatusOr<Model> Model::Create(const ModelConfig& config, std::shared_ptr<const ModelWeights> weights,
                                    const EngineLimits& limits, Backend& backend) {
  Model model(config, std::move(weights), backend);
  const auto allocate = [&backend](int64_t rows, int64_t cols) {
    return backend.Allocate(static_cast<size_t>(rows * cols) * sizeof(float));
  };
  const int64_t tokens = limits.max_num_batched_tokens;
  const int64_t query_size = int64_t{config.num_heads} * config.head_dim;
  const int64_t kv_size = int64_t{config.num_kv_heads} * config.head_dim;
  ASSIGN_OR_RETURN(model.hidden_, allocate(tokens, config.hidden_size));
  ASSIGN_OR_RETURN(model.normed_, allocate(tokens, config.hidden_size));
  ASSIGN_OR_RETURN(model.delta_, allocate(tokens, config.hidden_size));
  ASSIGN_OR_RETURN(model.qkv_, allocate(tokens, query_size + 2 * kv_size));
  ASSIGN_OR_RETURN(model.attention_, allocate(tokens, query_size));
  const int64_t inner = config.moe.IsSparseThroughout() ? 0 : config.intermediate_size;
  ASSIGN_OR_RETURN(model.gate_up_, allocate(tokens, 2 * inner));
  ASSIGN_OR_RETURN(model.gated_, allocate(tokens, inner));
  if (config.moe.num_experts > 0) {
    ASSIGN_OR_RETURN(model.moe_, MoeMlp::Create(config, {0, config.moe.num_experts}, tokens, backend));
  }
  ASSIGN_OR_RETURN(model.sampled_, allocate(limits.max_num_logits(), config.hidden_size));
  ASSIGN_OR_RETURN(model.logits_, allocate(limits.max_num_logits(), config.vocab_size));

  const std::vector<float> table = MakeCosSinTable(config, limits.max_model_len);
  ASSIGN_OR_RETURN(model.rotary_.cos_sin, backend.Allocate(table.size() * sizeof(float)));
  backend.CopyFromHost(model.rotary_.cos_sin.data(), table.data(), table.size() * sizeof(float));
  model.rotary_.max_positions = limits.max_model_len;
  model.rotary_.rotary_dim = static_cast<int>(static_cast<int64_t>(table.size()) / limits.max_model_len);
  return model;
}

Tensor Model::Embed(const StepInput& input) {
  const Tensor hidden = View(hidden_, input.num_tokens(), config_.hidden_size);
  backend_->Embed(input.token_ids(), weights_->embedding, hidden);
  return hidden;
}

Tensor Model::RunLayers(const StepInput& input, Tensor hidden, const KvCache& kv_cache) {
  const Tensor normed = View(normed_, hidden.rows, hidden.cols);
  backend_->RmsNorm(hidden, weights_->layers[0].input_norm.As<float>(), config_.rms_norm_eps, normed);
  for (int i = 0; i < config_.num_layers; ++i) {
    const LayerWeights& layer = weights_->layers[static_cast<size_t>(i)];
    const bool last = i + 1 == config_.num_layers;
    const Buffer& next_norm = last ? weights_->final_norm : weights_->layers[static_cast<size_t>(i) + 1].input_norm;
    const Tensor attended = Attention(input, i, normed, kv_cache.Layer(i));
    backend_->AddRmsNorm(hidden, attended, layer.post_norm.As<float>(), config_.rms_norm_eps, normed);
    const Tensor transformed = Mlp(i, normed);
    backend_->AddRmsNorm(hidden, transformed, next_norm.As<float>(), config_.rms_norm_eps, normed);
  }
  return normed;
}

Tensor Model::Attention(const StepInput& input, int layer, Tensor normed, const KvView& kv) {
  const LayerWeights& weights = weights_->layers[static_cast<size_t>(layer)];
  const Tensor qkv = View(qkv_, normed.rows, weights.qkv.out_features);
  backend_->Linear(normed, weights.qkv, qkv);
  const QkNorm norm{weights.q_norm.As<float>(), weights.k_norm.As<float>(), config_.rms_norm_eps};
  backend_->RotateAndAppend(qkv, heads_, norm, rotary_, input.rows(), kv);

  const Tensor attention = View(attention_, normed.rows, weights.output.in_features);
  const AttentionArgs args{heads_, 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                           config_.sliding_window[static_cast<size_t>(layer)]};
  backend_->Attention(qkv, args, input.rows(), kv, attention);
  const Tensor delta = View(delta_, normed.rows, normed.cols);
  backend_->Linear(attention, weights.output, delta);
  return delta;
}

Tensor Model::Mlp(int layer, Tensor normed) {
  const LayerWeights& weights = weights_->layers[static_cast<size_t>(layer)];
  const Tensor delta = View(delta_, normed.rows, normed.cols);
  if (weights.moe.has_value()) {
    moe_->Run(layer, *weights.moe, normed, delta);
    return delta;
  }
  const Tensor gate_up = View(gate_up_, normed.rows, weights.gate_up.out_features);
  const Tensor gated = View(gated_, normed.rows, weights.down.in_features);
  backend_->Linear(normed, weights.gate_up, gate_up);
  backend_->SwiGlu(gate_up, gated);
  backend_->Linear(gated, weights.down, delta);
  return delta;
}

Tensor Model::Logits(const StepInput& input, Tensor hidden) {
  const Tensor sampled = View(sampled_, input.num_samples(), config_.hidden_size);
  const Tensor logits = View(logits_, input.num_samples(), config_.vocab_size);
  backend_->GatherRows(hidden, input.sampled_tokens(), sampled);
  backend_->Linear(sampled, weights_->output_head(), logits);
  return logits;
}

}  // namespace weft
