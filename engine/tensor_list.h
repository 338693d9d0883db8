// The tensors that a configuration implies, by their names in a checkpoint: what loading asks for, and all that a
// checkpoint may hold; and of each the part that is one rank's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/model_config.h"
#include "engine/parallel_plan.h"

namespace weft {

struct TensorSpec {
  enum class Role { kMatrix, kNorm, kBias };
  std::string name;
  Role role = Role::kMatrix;
  int64_t rows = 0;
  int64_t cols = 0;  // of a matrix; a norm or a bias is a vector of `rows`
  // What a rank loads of it.
  Range row_part;
  Range col_part;  // of a matrix
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

// The experts of one layer that are on the rank; the router knows all.
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
  std::optional<LinearSpec> embedding;  // of the first stage
  std::vector<LayerSpec> layers;
  std::optional<TensorSpec> final_norm;  // of the last stage
  std::optional<LinearSpec> head;        // of the last stage; none there: it is the embedding of the same rank
};

// All that a checkpoint holds is what a rank with WholeModel needs.
ModelSpec ListTensors(const ModelConfig& config, const ParallelPlan& plan);

// Every tensor, or part of one, in the order of loading. Points into `spec`.
std::vector<const TensorSpec*> AllTensors(const ModelSpec& spec);

// True for a tensor that some writers leave in a checkpoint and that loading passes over: the head of a model with tied
// embeddings, and the rotary frequencies, which follow from the configuration.
bool IsTolerated(absl::string_view name, const ModelConfig& config);

}  // namespace weft
