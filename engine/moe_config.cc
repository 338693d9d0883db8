#include "engine/moe_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

constexpr int64_t kMaxExperts = 1 << 12;         // in a layer
constexpr int64_t kMaxExpertsOfModel = 1 << 16;  // each has three tensors, and a checkpoint at most 200,000

absl::Status ReadNumExperts(const ModelJsonFields& fields, const MoeFamily& family, MoeConfig& moe) {
  constexpr Range<int64_t> kRange{1, kMaxExperts};
  const char* name = fields.Has("num_experts") ? "num_experts" : "num_local_experts";
  ASSIGN_OR_RETURN(const int64_t count, fields.Int(name, kRange, family.num_experts));
  ASSIGN_OR_RETURN(const int64_t other, fields.Int("num_local_experts", kRange, count));
  if (other != count) {
    return fields.Error("inconsistent", "num_experts", absl::StrCat("is ", count, ", num_local_experts ", other));
  }
  ASSIGN_OR_RETURN(const int64_t chosen, fields.Int("num_experts_per_tok", kRange, family.num_experts_per_token));
  if (chosen > count) {
    return fields.Error("inconsistent", "num_experts_per_tok",
                        absl::StrCat(chosen, " is more than the ", count, " experts there are"));
  }
  moe.num_experts = static_cast<int>(count);
  moe.num_experts_per_token = static_cast<int>(chosen);
  return absl::OkStatus();
}

absl::Status ReadExpertSizes(const ModelJsonFields& fields, const MoeFamily& family, MoeConfig& moe) {
  constexpr Range<int64_t> kRange{1, 1 << 20};
  ASSIGN_OR_RETURN(const int64_t inner, fields.Int(family.intermediate_size_field, kRange, family.intermediate_size));
  moe.intermediate_size = static_cast<int32_t>(inner);
  if (family.shared_intermediate_size == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t shared,
                   fields.Int("shared_expert_intermediate_size", kRange, family.shared_intermediate_size));
  moe.shared_intermediate_size = static_cast<int32_t>(shared);
  return absl::OkStatus();
}

absl::Status ReadMlpOnlyLayers(const ModelJsonFields& fields, MoeConfig& moe) {
  constexpr char kName[] = "mlp_only_layers";
  const nlohmann::json* list = fields.Find(kName);
  if (list == nullptr) return absl::OkStatus();
  if (!list->is_array()) return fields.Error("missing_field", kName, "is not a list");
  for (const nlohmann::json& layer : *list) {
    if (!layer.is_number_integer()) return fields.Error("missing_field", kName, "holds something other than integers");
    if (layer < 0 || layer >= moe.sparse.size()) {
      return fields.Error("out_of_range", kName,
                          absl::StrCat("holds ", layer.dump(), ", not one of ", moe.sparse.size(), " layers"));
    }
    moe.sparse[layer.get<size_t>()] = false;
  }
  return absl::OkStatus();
}

absl::Status ReadSparseLayers(const ModelJsonFields& fields, const MoeFamily& family, int num_layers, MoeConfig& moe) {
  moe.sparse.assign(static_cast<size_t>(num_layers), true);
  if (!family.has_dense_layers) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t step, fields.Int("decoder_sparse_step", {1, 1 << 11}, 1));
  for (size_t layer = 0; layer < moe.sparse.size(); ++layer) {
    moe.sparse[layer] = (static_cast<int64_t>(layer) + 1) % step == 0;
  }
  return ReadMlpOnlyLayers(fields, moe);
}

}  // namespace

const MoeFamily kMixtralExperts = {.intermediate_size_field = "intermediate_size",
                                   .num_experts = 8,
                                   .num_experts_per_token = 2,
                                   .intermediate_size = 14336,
                                   .shared_intermediate_size = 0,
                                   .normalizes = true,
                                   .has_dense_layers = false,
                                   .names = {"block_sparse_moe", "w1", "w3", "w2"}};

const MoeFamily kQwen2Experts = {.intermediate_size_field = "moe_intermediate_size",
                                 .num_experts = 60,
                                 .num_experts_per_token = 4,
                                 .intermediate_size = 1408,
                                 .shared_intermediate_size = 5632,
                                 .normalizes = false,
                                 .has_dense_layers = true,
                                 .names = {"mlp", "gate_proj", "up_proj", "down_proj"}};

const MoeFamily kQwen3Experts = {.intermediate_size_field = "moe_intermediate_size",
                                 .num_experts = 128,
                                 .num_experts_per_token = 8,
                                 .intermediate_size = 768,
                                 .shared_intermediate_size = 0,
                                 .normalizes = false,
                                 .has_dense_layers = true,
                                 .names = {"mlp", "gate_proj", "up_proj", "down_proj"}};

absl::Status ReadMoe(const ModelJsonFields& fields, const MoeFamily& family, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.names = family.names;
  RETURN_IF_ERROR(ReadNumExperts(fields, family, moe));
  RETURN_IF_ERROR(ReadExpertSizes(fields, family, moe));
  RETURN_IF_ERROR(ReadSparseLayers(fields, family, config.num_layers, moe));
  const int64_t total = std::count(moe.sparse.begin(), moe.sparse.end(), true) * moe.num_experts;
  if (total > kMaxExpertsOfModel) {
    return fields.Error("out_of_range", "num_experts",
                        absl::StrCat("makes ", total, " experts in all layers, more than ", kMaxExpertsOfModel));
  }
  ASSIGN_OR_RETURN(const bool normalizes, fields.Bool("norm_topk_prob", false));
  moe.normalize_weights = family.normalizes || normalizes;
  return absl::OkStatus();
}

}  // namespace weft
