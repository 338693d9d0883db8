// config.json of a Hugging Face model directory, checked: the families differ by these fields, not by classes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model_dir.h"
#include "kernels/dtype.h"

namespace weft {

// No model is longer than this; a configuration that says more is refused.
inline constexpr int64_t kMaxPositions = int64_t{1} << 24;

// How rotary frequencies are stretched beyond the trained context. Names and formulas as in Hugging Face
// `rope_scaling` / `rope_parameters`.
struct RopeScaling {
  enum class Kind { kNone, kLinear, kDynamic, kLlama3, kYarn };
  Kind kind = Kind::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;                  // llama3
  double high_freq_factor = 4.0;                 // llama3
  int64_t original_max_position_embeddings = 0;  // llama3, yarn, dynamic
  double beta_fast = 32.0;                       // yarn
  double beta_slow = 1.0;                        // yarn
  std::optional<double> attention_factor;        // yarn
  std::optional<double> mscale;                  // yarn
  std::optional<double> mscale_all_dim;          // yarn
  bool truncate = true;                          // yarn: round the correction range to whole dimensions
};

// What a checkpoint calls the experts of a layer and their matrices: MODULE.experts.E.GATE.weight.
struct ExpertNames {
  const char* module = "";
  const char* gate = "";
  const char* up = "";
  const char* down = "";
};

// Experts in place of the MLP of some layers: a router's softmax picks a few for each token. Empty for a dense model.
struct MoeConfig {
  int num_experts = 0;                   // 0: a dense model
  int num_experts_per_token = 0;         // 1 .. num_experts
  int32_t intermediate_size = 0;         // of each expert
  int32_t shared_intermediate_size = 0;  // of an expert that every token goes to, with a gate of its own; 0: none
  bool normalize_weights = false;        // a token's weights are divided by their sum
  std::vector<bool> sparse;              // one entry a layer: experts, or an MLP; empty for a dense model
  ExpertNames names;

  bool IsSparse(int layer) const { return !sparse.empty() && sparse[static_cast<size_t>(layer)]; }
  bool IsSparseThroughout() const {
    return !sparse.empty() && std::find(sparse.begin(), sparse.end(), false) == sparse.end();
  }
};

struct ModelConfig {
  std::string model_type;    // "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"
  std::string architecture;  // "LlamaForCausalLM", ...
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;  // of the MLP
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  float rms_norm_eps = 1e-6f;
  int64_t max_position_embeddings = 0;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  bool qkv_bias = false;     // Qwen2; Llama with attention_bias
  bool output_bias = false;  // Llama with attention_bias: o_proj too
  bool mlp_bias = false;     // Llama with mlp_bias: gate_proj, up_proj and down_proj
  bool qk_norm = false;      // Qwen3
  bool tie_word_embeddings = false;
  MoeConfig moe;
  // Tokens a layer's attention looks back on, itself included; 0: all. One entry a layer.
  std::vector<int64_t> sliding_window;
  DType dtype = DType::kF32;           // of the checkpoint, as config.json names it
  std::vector<int32_t> eos_token_ids;  // config.json, overridden by generation_config.json
  std::optional<int32_t> bos_token_id;
  std::vector<std::string> warnings;  // what was found and ignored, a line each
};

// Sampling defaults of generation_config.json; what a request leaves out takes these.
struct GenerationConfig {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<int32_t> max_new_tokens;
};

// Reads config.json, and of generation_config.json, where it exists, the end-of-sequence ids. A field that is left out
// takes the default of transformers' class of that family.
//
// Errors: NotFound without a config.json; InvalidArgument "FILE: code: field ..." with the code words of the bad-input
// catalogue (K01 to K09): unsupported_model, missing_field (also for a value of another type), out_of_range,
// inconsistent, unsupported_rope, unsupported_quantization; invalid_json, too_large.
absl::StatusOr<ModelConfig> LoadModelConfig(const ModelDir& dir);

// Empty when there is no generation_config.json. Errors as above.
absl::StatusOr<GenerationConfig> LoadGenerationConfig(const ModelDir& dir);

}  // namespace weft
