// The part of config.json that speaks of experts.
#pragma once

#include "absl/status/status.h"
#include "engine/model_config.h"
#include "engine/model_json.h"

namespace weft {

// What transformers' configuration class of one family assumes of a field that is left out.
struct MoeFamily {
  const char* intermediate_size_field;
  int64_t num_experts;
  int64_t num_experts_per_token;
  int64_t intermediate_size;
  int64_t shared_intermediate_size;  // 0: the family has no shared expert
  bool normalizes;                   // always, whatever norm_topk_prob says
  bool has_dense_layers;             // decoder_sparse_step, mlp_only_layers
  ExpertNames names;
};

extern const MoeFamily kMixtralExperts;
extern const MoeFamily kQwen2Experts;
extern const MoeFamily kQwen3Experts;

// Reads the experts into `config`, whose num_layers is set. The number of experts is `num_experts` or
// `num_local_experts`: which one a writer chooses depends on its version more than on the family. Errors:
// InvalidArgument missing_field, out_of_range, inconsistent.
absl::Status ReadMoe(const ModelJsonFields& fields, const MoeFamily& family, ModelConfig& config);

}  // namespace weft
