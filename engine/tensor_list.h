// The tensors that a configuration implies, by their names in a checkpoint: what loading asks for, and all that a
// checkpoint may hold.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/model_config.h"

namespace weft {

struct TensorSpec {
  enum class Role { kMatrix, kNorm, kBias };
  std::string name;
  Role role = Role::kMatrix;
  int64_t rows = 0;
  int64_t cols = 0;  // of a matrix; a norm or a bias is a vector of `rows`
};

// One linear: the matrices stacked in it, and their biases, or none.
struct LinearSpec {
  std::vector<TensorSpec> parts;
  std::vector<TensorSpec> biases;
};

struct MlpSpec {
  LinearSpec gate_up;
  LinearSpec down;
};

struct SharedExpertSpec {
  LinearSpec gate;
  MlpSpec mlp;
};

// All experts of one layer.
struct MoeSpec {
  LinearSpec router;
  std::vector<MlpSpec> experts;
  std::optional<SharedExpertSpec> shared;
};

struct LayerSpec {
  TensorSpec input_norm;
  LinearSpec qkv;
  std::optional<TensorSpec> q_norm, k_norm;
  LinearSpec output;
  TensorSpec post_norm;
  std::optional<MlpSpec> mlp;  // this or the next
  std::optional<MoeSpec> moe;
};

struct ModelSpec {
  LinearSpec embedding;
  std::vector<LayerSpec> layers;
  TensorSpec final_norm;
  std::optional<LinearSpec> head;
};

ModelSpec ListTensors(const ModelConfig& config);

// Every tensor of the list once, in the order of loading. Points into `spec`.
std::vector<const TensorSpec*> AllTensors(const ModelSpec& spec);

// True for a tensor that some writers leave in a checkpoint and that loading passes over: the head of a model with tied
// embeddings, and the rotary frequencies, which follow from the configuration.
bool IsTolerated(absl::string_view name, const ModelConfig& config);

}  // namespace weft
