#include "engine/model.h"

#include <cmath>
#include <utility>
#include <vector>

#include "engine/rotary.h"
#include "kernels/status_macros.h"

namespace weft {

Model::Model(const ModelConfig& config, const ParallelPlan& plan, std::shared_ptr<const ModelWeights> weights,
             const TensorParallel& tensor_parallel, Backend& backend)
    : config_(config),
      plan_(plan),
      weights_(std::move(weights)),
      tensor_parallel_(tensor_parallel),
      backend_(&backend) {
  const HeadShard shard = HeadsOf(config, plan);
  heads_ = {static_cast<int>(shard.heads.count), static_cast<int>(shard.kv_heads.size()), config.head_dim};
}

absl::StatusOr<Model> Model::Create(const ModelConfig& config, const ParallelPlan& plan,
                                    std::shared_ptr<const ModelWeights> weights, const EngineLimits& limits,
                                    const TensorParallel& tensor_parallel, Backend& backend) {
  Model model(config, plan, std::move(weights), tensor_parallel, backend);
  const auto allocate_floats = [&backend](int64_t rows, int64_t cols) {
    return backend.Allocate(static_cast<size_t>(rows * cols) * sizeof(float));
  };
  const auto allocate = [&backend](int64_t rows, int64_t cols) {
    return backend.Allocate(static_cast<size_t>(rows * cols) * DTypeBytes(backend.activation_dtype()));
  };
  const int64_t tokens = limits.max_num_batched_tokens;
  const LayerWeights& layer = model.weights_->layers[0];
  ASSIGN_OR_RETURN(model.hidden_, allocate_floats(tokens, config.hidden_size));
  ASSIGN_OR_RETURN(model.normed_, allocate(tokens, config.hidden_size));
  ASSIGN_OR_RETURN(model.delta_, allocate(tokens, config.hidden_size));
  ASSIGN_OR_RETURN(model.qkv_, allocate(tokens, layer.qkv.out_features));
  ASSIGN_OR_RETURN(model.attention_, allocate(tokens, layer.output.in_features));
  const int64_t inner =
      config.moe.IsSparseThroughout() ? 0 : ShardOf(config.intermediate_size, plan.tp_rank, plan.tp_size).count;
  ASSIGN_OR_RETURN(model.gate_up_, allocate(tokens, 2 * inner));
  ASSIGN_OR_RETURN(model.gated_, allocate(tokens, inner));
  if (config.moe.num_experts > 0) {
    ASSIGN_OR_RETURN(model.moe_, MoeMlp::Create(config, plan, tokens, backend));
  }
  if (plan.IsLastStage()) {
    ASSIGN_OR_RETURN(model.sampled_, allocate(limits.max_num_logits(), config.hidden_size));
    ASSIGN_OR_RETURN(model.logits_,
                     allocate_floats(limits.max_num_logits(), model.weights_->output_head().out_features));
  }

  const std::vector<float> table = MakeCosSinTable(config, limits.max_model_len);
  ASSIGN_OR_RETURN(model.rotary_.cos_sin, backend.Allocate(table.size() * sizeof(float)));
  backend.CopyFromHost(model.rotary_.cos_sin.data(), table.data(), table.size() * sizeof(float));
  model.rotary_.max_positions = limits.max_model_len;
  model.rotary_.rotary_dim = static_cast<int>(static_cast<int64_t>(table.size()) / limits.max_model_len);
  return model;
}

Tensor Model::Embed(const StepInput& input) {
  const Tensor hidden = Hidden(input);
  tensor_parallel_.Embed(input.token_ids(), config_.vocab_size, *weights_->embedding, hidden);
  return hidden;
}

// Between two blocks the sum that ends one and the norm that begins the next are one op.
Tensor Model::RunLayers(const StepInput& input, Tensor hidden, const KvCache& kv_cache) {
  const Tensor normed = View(normed_, hidden.rows, hidden.cols);
  backend_->RmsNorm(hidden, weights_->layers[0].input_norm.As<float>(), config_.rms_norm_eps, normed);
  const auto num_layers = static_cast<int>(plan_.layers.count);
  for (int i = 0; i < num_layers; ++i) {
    const LayerWeights& layer = weights_->layers[static_cast<size_t>(i)];
    const Tensor attended = Attention(input, i, normed, kv_cache.Layer(i));
    backend_->AddRmsNorm(hidden, attended, layer.post_norm.As<float>(), config_.rms_norm_eps, normed);
    const Tensor transformed = Mlp(i, normed);
    const bool last = i + 1 == num_layers;
    if (last && !plan_.IsLastStage()) {
      backend_->Add(hidden, transformed);
      return hidden;
    }
    const Buffer& next_norm = last ? weights_->final_norm : weights_->layers[static_cast<size_t>(i) + 1].input_norm;
    backend_->AddRmsNorm(hidden, transformed, next_norm.As<float>(), config_.rms_norm_eps, normed);
  }
  return normed;
}

Tensor Model::Attention(const StepInput& input, int layer, Tensor normed, const KvView& kv) {
  const LayerWeights& weights = weights_->layers[static_cast<size_t>(layer)];
  const Tensor qkv = View(qkv_, normed.rows, weights.qkv.out_features);
  tensor_parallel_.ColumnParallel(normed, weights.qkv, qkv);
  const QkNorm norm{weights.q_norm.As<float>(), weights.k_norm.As<float>(), config_.rms_norm_eps};
  backend_->RotateAndAppend(qkv, heads_, norm, rotary_, input.rows(), kv);

  const Tensor attention = View(attention_, normed.rows, weights.output.in_features);
  const AttentionArgs args{heads_, 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                           config_.sliding_window[static_cast<size_t>(plan_.layers.begin + layer)]};
  backend_->Attention(qkv, args, input.rows(), kv, attention);
  const Tensor delta = View(delta_, normed.rows, normed.cols);
  tensor_parallel_.RowParallel(attention, weights.output, delta);
  return delta;
}

Tensor Model::Mlp(int layer, Tensor normed) {
  const LayerWeights& weights = weights_->layers[static_cast<size_t>(layer)];
  const Tensor delta = View(delta_, normed.rows, normed.cols);
  if (weights.moe.has_value()) {
    moe_->Run(layer, *weights.moe, normed, delta);
    tensor_parallel_.SumOverRanks(delta);
    return delta;
  }
  const Tensor gate_up = View(gate_up_, normed.rows, weights.gate_up.out_features);
  const Tensor gated = View(gated_, normed.rows, weights.down.in_features);
  tensor_parallel_.ColumnParallel(normed, weights.gate_up, gate_up);
  backend_->SwiGlu(gate_up, gated);
  tensor_parallel_.RowParallel(gated, weights.down, delta);
  return delta;
}

Tensor Model::Forward(const StepInput& input, const KvCache& kv_cache) {
  const auto ops = [&] {
    Tensor hidden = plan_.IsFirstStage() ? Embed(input) : Hidden(input);
    hidden = RunLayers(input, hidden, kv_cache);
    if (plan_.IsLastStage() && input.num_samples() > 0) Logits(input, hidden);
  };
  if (input.can_replay()) {
    backend_->Replay(input.num_tokens(), ops);
  } else {
    ops();
  }
  return plan_.IsLastStage() ? LogitsOf(input) : Hidden(input);
}

Tensor Model::Logits(const StepInput& input, Tensor hidden) {
  const Tensor sampled = View(sampled_, input.num_samples(), config_.hidden_size);
  const Tensor logits = LogitsOf(input);
  backend_->GatherRows(hidden, input.sampled_tokens(), sampled);
  tensor_parallel_.ColumnParallel(sampled, weights_->output_head(), logits);
  return logits;
}

}  // namespace weft
