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

LayerSpec ListLayer(const ModelConfig& config, int layer) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const std::string attention = absl::StrCat(prefix, "self_attn.");
  const std::string mlp = absl::StrCat(prefix, "mlp.");
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
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
  spec.gate_up = Linear(mlp, {{"gate_proj", inner}, {"up_proj", inner}}, hidden, config.mlp_bias);
  spec.down = Linear(mlp, {{"down_proj", hidden}}, inner, config.mlp_bias);
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
  add_linear(spec.embedding);
  for (const LayerSpec& layer : spec.layers) {
    add(layer.input_norm);
    add_linear(layer.qkv);
    if (layer.q_norm.has_value()) add(*layer.q_norm);
    if (layer.k_norm.has_value()) add(*layer.k_norm);
    add_linear(layer.output);
    add(layer.post_norm);
    add_linear(layer.gate_up);
    add_linear(layer.down);
  }
  add(spec.final_norm);
  if (spec.head.has_value()) add_linear(*spec.head);
  return all;
}

bool IsTolerated(absl::string_view name, const ModelConfig& config) {
  return (config.tie_word_embeddings && name == "lm_head.weight") || absl::EndsWith(name, ".rotary_emb.inv_freq");
}

}  // namespace weft
