#include "engine/tensor_list.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "engine/expert_parallel.h"
#include "engine/tensor_parallel.h"

namespace weft {
namespace {

using Role = TensorSpec::Role;

// One matrix of a linear, named PREFIX.NAME.weight: a part of its rows.
struct Part {
  const char* name;
  int64_t rows;
  Range rank_rows;
};

// Column-parallel: of each matrix [rows, cols], and of its bias, the rank has some rows.
LinearSpec ByRows(const std::string& prefix, absl::Span<const Part> parts, int64_t cols, bool bias) {
  LinearSpec linear;
  for (const auto& [name, rows, own] : parts) {
    linear.parts.push_back({absl::StrCat(prefix, name, ".weight"), Role::kMatrix, rows, cols, own, {0, cols}});
    if (bias) linear.biases.push_back({absl::StrCat(prefix, name, ".bias"), Role::kBias, rows, 0, own, {}});
  }
  return linear;
}

// Row-parallel: the rank has some columns of the matrix [rows, cols]; the bias is added once, by rank 0.
LinearSpec ByCols(const std::string& name, int64_t rows, int64_t cols, Range own, bool bias, const ParallelPlan& plan) {
  LinearSpec linear;
  linear.parts.push_back({absl::StrCat(name, ".weight"), Role::kMatrix, rows, cols, {0, rows}, own});
  if (bias && plan.tp_rank == 0) {
    linear.biases.push_back({absl::StrCat(name, ".bias"), Role::kBias, rows, 0, {0, rows}, {}});
  }
  return linear;
}

TensorSpec Norm(const std::string& name, int64_t size) { return {name, Role::kNorm, size, 0, {0, size}, {}}; }

LinearSpec ListQkv(const ModelConfig& config, const HeadShard& shard, const std::string& attention) {
  const int64_t head = config.head_dim;
  const int64_t kv_rows = config.num_kv_heads * head;
  std::vector<Part> parts = {{"q_proj", config.num_heads * head, {shard.heads.begin * head, shard.heads.count * head}}};
  for (const char* const name : {"k_proj", "v_proj"}) {
    for (size_t i = 0; i < shard.kv_heads.size();) {  // neighbours in one piece
      const int64_t first = shard.kv_heads[i];
      int64_t count = 0;
      while (i < shard.kv_heads.size() && shard.kv_heads[i] == first + count) ++i, ++count;
      parts.push_back({name, kv_rows, {first * head, count * head}});
    }
  }
  return ByRows(attention, parts, config.hidden_size, config.qkv_bias);
}

// gate, up and down of an MLP, or of one expert: a part of its columns.
MlpSpec Mlp(const std::string& prefix, const ExpertNames& names, int64_t inner, Range own, const ModelConfig& config,
            const ParallelPlan& plan) {
  const int64_t hidden = config.hidden_size;
  return {ByRows(prefix, {{names.gate, inner, own}, {names.up, inner, own}}, hidden, config.mlp_bias),
          ByCols(absl::StrCat(prefix, names.down), hidden, inner, own, config.mlp_bias, plan)};
}

constexpr ExpertNames kMlpNames = {"mlp", "gate_proj", "up_proj", "down_proj"};

// `prefix`: of the layer.
MoeSpec ListMoe(const std::string& prefix, const ModelConfig& config, const ParallelPlan& plan) {
  const MoeConfig& moe = config.moe;
  const ExpertShard shard = ExpertsOf(config, plan);
  const std::string module = absl::StrCat(prefix, moe.names.module, ".");
  MoeSpec spec;
  spec.router = ByRows(module, {{"gate", moe.num_experts, {0, moe.num_experts}}}, config.hidden_size, false);
  for (int i = 0; i < shard.here.count; ++i) {
    const std::string name = absl::StrCat(module, "experts.", shard.here.first + i, ".");
    spec.experts.push_back(Mlp(name, moe.names, moe.intermediate_size, shard.inner, config, plan));
  }
  if (moe.shared_intermediate_size > 0) {
    const std::string name = absl::StrCat(module, "shared_expert.");
    spec.shared = {ByRows(module, {{"shared_expert_gate", 1, {0, 1}}}, config.hidden_size, false),
                   Mlp(name, moe.names, moe.shared_intermediate_size, shard.shared_inner, config, plan)};
  }
  return spec;
}

LayerSpec ListLayer(const ModelConfig& config, const ParallelPlan& plan, int64_t layer) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const std::string attention = absl::StrCat(prefix, "self_attn.");
  const int64_t hidden = config.hidden_size;
  const HeadShard heads = HeadsOf(config, plan);
  const int64_t head = config.head_dim;

  LayerSpec spec;
  spec.input_norm = Norm(absl::StrCat(prefix, "input_layernorm.weight"), hidden);
  spec.qkv = ListQkv(config, heads, attention);
  if (config.qk_norm) {
    spec.q_norm = Norm(absl::StrCat(attention, "q_norm.weight"), config.head_dim);
    spec.k_norm = Norm(absl::StrCat(attention, "k_norm.weight"), config.head_dim);
  }
  spec.output = ByCols(absl::StrCat(attention, "o_proj"), hidden, config.num_heads * head,
                       {heads.heads.begin * head, heads.heads.count * head}, config.output_bias, plan);
  spec.post_norm = Norm(absl::StrCat(prefix, "post_attention_layernorm.weight"), hidden);
  if (config.moe.IsSparse(static_cast<int>(layer))) {
    spec.moe = ListMoe(prefix, config, plan);
  } else {
    const Range own = ShardOf(config.intermediate_size, plan.tp_rank, plan.tp_size);
    spec.mlp = Mlp(absl::StrCat(prefix, "mlp."), kMlpNames, config.intermediate_size, own, config, plan);
  }
  return spec;
}

}  // namespace

ModelSpec ListTensors(const ModelConfig& config, const ParallelPlan& plan) {
  const int64_t vocab = config.vocab_size;
  const Range tokens = ShardOf(vocab, plan.tp_rank, plan.tp_size);
  const LinearSpec embedding = ByRows("model.", {{"embed_tokens", vocab, tokens}}, config.hidden_size, false);
  ModelSpec spec;
  if (plan.IsFirstStage()) spec.embedding = embedding;
  for (int64_t i = plan.layers.begin; i < plan.layers.end(); ++i) spec.layers.push_back(ListLayer(config, plan, i));
  if (!plan.IsLastStage()) return spec;
  spec.final_norm = Norm("model.norm.weight", config.hidden_size);
  if (!config.tie_word_embeddings) {
    spec.head = ByRows("", {{"lm_head", vocab, tokens}}, config.hidden_size, false);
  } else if (!plan.IsFirstStage()) {
    spec.head = embedding;
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
  if (spec.embedding.has_value()) add_linear(*spec.embedding);
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
  if (spec.final_norm.has_value()) add(*spec.final_norm);
  if (spec.head.has_value()) add_linear(*spec.head);
  return all;
}

bool IsTolerated(absl::string_view name, const ModelConfig& config) {
  return (config.tie_word_embeddings && name == "lm_head.weight") || absl::EndsWith(name, ".rotary_emb.inv_freq");
}

}  // namespace weft
