#include "engine/tensor_list.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

namespace weft {
namespace {

using Role = TensorSpec::Role;

struct Part {
  const char* name;
  int64_t rows;
};

// The linear of `parts`, each [rows, cols] and named PREFIX.NAME.weight.
LinearSpec Linear(const std::string& prefix, absl::Span<const Part> parts, int64_t cols, bool bias) {
  LinearSpec linear;
  for (const Part& part : parts) {
    linear.parts.push_back({absl::StrCat(prefix, part.name, ".weight"), Role::kMatrix, part.rows, cols});
    if (bias) linear.biases.push_back({absl::StrCat(prefix, part.name, ".bias"), Role::kBias, part.rows, 0});
  }
  return linear;
}

TensorSpec Norm(const std::string& name, int64_t size) { return {name, Role::kNorm, size, 0}; }

// gate, up and down of an MLP or of one expert.
MlpSpec Mlp(const std::string& prefix, const ExpertNames& names, int64_t inner, const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  return {Linear(prefix, {{names.gate, inner}, {names.up, inner}}, hidden, config.mlp_bias),
          Linear(prefix, {{names.down, hidden}}, inner, config.mlp_bias)};
}

constexpr ExpertNames kMlpNames = {"mlp", "gate_proj", "up_proj", "down_proj"};

// `prefix`: of the layer.
MoeSpec ListMoe(const std::string& prefix, const ModelConfig& config) {
  const MoeConfig& moe = config.moe;
  const std::string module = absl::StrCat(prefix, moe.names.module, ".");
  MoeSpec spec;
  spec.router = Linear(module, {{"gate", moe.num_experts}}, config.hidden_size, false);
  for (int expert = 0; expert < moe.num_experts; ++expert) {
    const std::string name = absl::StrCat(module, "experts.", expert, ".");
    spec.experts.push_back(Mlp(name, moe.names, moe.intermediate_size, config));
  }
  if (moe.shared_intermediate_size > 0) {
    spec.shared = {Linear(module, {{"shared_expert_gate", 1}}, config.hidden_size, false),
                   Mlp(absl::StrCat(module, "shared_expert."), moe.names, moe.shared_intermediate_size, config)};
  }
  return spec;
}

LayerSpec ListLayer(const ModelConfig& config, int layer) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const std::string attention = absl::StrCat(prefix, "self_attn.");
  const int64_t hidden = config.hidden_size;
  const int64_t q_rows = int64_t{config.num_heads} * config.head_dim;
  const int64_t kv_rows = int64_t{config.num_kv_heads} * config.head_dim;

  LayerSpec spec;
  spec.input_norm = Norm(absl::StrCat(prefix, "input_layernorm.weight"), hidden);
  spec.qkv = Linear(attention, {{"q_proj", q_rows}, {"k_proj", kv_rows}, {"v_proj", kv_rows}}, hidden, config.qkv_bias);
  if (config.qk_norm) {
    spec.q_norm = Norm(absl::StrCat(attention, "q_norm.weight"), config.head_dim);
    spec.k_norm = Norm(absl::StrCat(attention, "k_norm.weight"), config.head_dim);
  }
  spec.output = Linear(attention, {{"o_proj", hidden}}, q_rows, config.output_bias);
  spec.post_norm = Norm(absl::StrCat(prefix, "post_attention_layernorm.weight"), hidden);
  if (config.moe.IsSparse(layer)) {
    spec.moe = ListMoe(prefix, config);
  } else {
    spec.mlp = Mlp(absl::StrCat(prefix, "mlp."), kMlpNames, config.intermediate_size, config);
  }
  return spec;
}

}  // namespace

ModelSpec ListTensors(const ModelConfig& config) {
  ModelSpec spec;
  spec.embedding = Linear("model.", {{"embed_tokens", config.vocab_size}}, config.hidden_size, false);
  for (int layer = 0; layer < config.num_layers; ++layer) spec.layers.push_back(ListLayer(config, layer));
  spec.final_norm = Norm("model.norm.weight", config.hidden_size);
  if (!config.tie_word_embeddings) {
    spec.head = Linear("", {{"lm_head", config.vocab_size}}, config.hidden_size, false);
  }
  return spec;
}

std::vector<const TensorSpec*> AllTensors(const ModelSpec& spec) {
  std::vector<const TensorSpec*> all;
  const auto add = [&](const TensorSpec& tensor) { all.push_back(&tensor); };
  const auto add_linear = [&](const LinearSpec& linear) {
    for (const TensorSpec& part : linear.parts) add(part);
    for (const TensorSpec& bias : linear.biases) add(bias);
  };
  const auto add_mlp = [&](const MlpSpec& mlp) {
    add_linear(mlp.gate_up);
    add_linear(mlp.down);
  };
  add_linear(spec.embedding);
  for (const LayerSpec& layer : spec.layers) {
    add(layer.input_norm);
    add_linear(layer.qkv);
    if (layer.q_norm.has_value()) add(*layer.q_norm);
    if (layer.k_norm.has_value()) add(*layer.k_norm);
    add_linear(layer.output);
    add(layer.post_norm);
    if (layer.mlp.has_value()) add_mlp(*layer.mlp);
    if (!layer.moe.has_value()) continue;
    add_linear(layer.moe->router);
    for (const MlpSpec& expert : layer.moe->experts) add_mlp(expert);
    if (!layer.moe->shared.has_value()) continue;
    add_linear(layer.moe->shared->gate);
    add_mlp(layer.moe->shared->mlp);
  }
  add(spec.final_norm);
  if (spec.head.has_value()) add_linear(*spec.head);
  return all;
}

bool IsTolerated(absl::string_view name, const ModelConfig& config) {
  return (config.tie_word_embeddings && name == "lm_head.weight") || absl::EndsWith(name, ".rotary_emb.inv_freq");
}

}  // namespace weft
