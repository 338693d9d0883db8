#include "engine/parallel_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

constexpr int kMaxRanks = 1024;

// Weights that a token meets in one layer.
double LayerCost(const ModelConfig& config, int layer) {
  const double hidden = config.hidden_size;
  const double heads = config.num_heads + 2.0 * config.num_kv_heads + config.num_heads;
  const MoeConfig& moe = config.moe;
  const double sparse = double{1} * moe.num_experts_per_token * moe.intermediate_size + moe.shared_intermediate_size;
  const double inner = moe.IsSparse(layer) ? sparse : config.intermediate_size;
  return hidden * heads * config.head_dim + 3.0 * hidden * inner;
}

double HeadCost(const ModelConfig& config) { return static_cast<double>(config.hidden_size) * config.vocab_size; }

// Layers of each stage, at least one, such that the costliest stage is the cheapest possible. By dynamic programming:
// best[s][n] is the least that the costliest of the first s stages costs when they hold n layers.
std::vector<int> Balance(const std::vector<double>& costs, double head_cost, int num_stages) {
  const auto num_layers = static_cast<int>(costs.size());
  std::vector<double> sums(costs.size() + 1, 0);
  std::partial_sum(costs.begin(), costs.end(), sums.begin() + 1);
  const auto at = [](int i) { return static_cast<size_t>(i); };
  const double never = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> best(at(num_stages + 1), std::vector<double>(at(num_layers + 1), never));
  std::vector<std::vector<int>> begin(at(num_stages + 1), std::vector<int>(at(num_layers + 1), 0));
  best[0][0] = 0;
  for (int stage = 1; stage <= num_stages; ++stage) {
    const double extra = stage == num_stages ? head_cost : 0;
    for (int end = stage; end <= num_layers; ++end) {
      for (int first = stage - 1; first < end; ++first) {
        const double cost = std::max(best[at(stage - 1)][at(first)], sums[at(end)] - sums[at(first)] + extra);
        if (cost >= best[at(stage)][at(end)]) continue;
        best[at(stage)][at(end)] = cost;
        begin[at(stage)][at(end)] = first;
      }
    }
  }
  std::vector<int> layers(at(num_stages));
  for (int stage = num_stages, end = num_layers; stage > 0; --stage) {
    layers[at(stage - 1)] = end - begin[at(stage)][at(end)];
    end = begin[at(stage)][at(end)];
  }
  return layers;
}

absl::Status CheckTensor(const ModelConfig& config, int size) {
  if (size < 1 || size > kMaxRanks) {
    return absl::InvalidArgumentError(absl::StrCat("tensor-parallel-size: ", size, " is not in 1 .. ", kMaxRanks));
  }
  if (config.num_heads % size != 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor-parallel-size: ", size, " ranks can't share ",
                                                   config.num_heads, " attention heads equally: ", config.num_heads,
                                                   " = ", config.num_heads / size, " x ", size, " + ",
                                                   config.num_heads % size));
  }
  return absl::OkStatus();
}

// A rank without a column of an MLP, or without a token, would have nothing to compute.
absl::Status CheckColumns(const ModelConfig& config, const ParallelSizes& sizes) {
  int32_t least = config.vocab_size;
  if (!config.moe.IsSparseThroughout()) least = std::min(least, config.intermediate_size);
  if (config.moe.shared_intermediate_size > 0) least = std::min(least, config.moe.shared_intermediate_size);
  if (least < sizes.tensor) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor-parallel-size: ", sizes.tensor, " ranks, but only ", least, " columns to share"));
  }
  if (config.moe.num_experts > 0 && config.moe.intermediate_size < sizes.tensor / sizes.expert) {
    return absl::InvalidArgumentError(absl::StrCat("tensor-parallel-size: ", sizes.tensor / sizes.expert,
                                                   " ranks share an expert, which has only ",
                                                   config.moe.intermediate_size, " columns"));
  }
  return absl::OkStatus();
}

absl::Status CheckPipeline(const ModelConfig& config, const ParallelSizes& sizes) {
  if (sizes.pipeline < 1 || sizes.pipeline > config.num_layers) {
    return absl::InvalidArgumentError(absl::StrCat("pipeline-parallel-size: ", sizes.pipeline, " is not in 1 .. ",
                                                   config.num_layers, ", the model's layers"));
  }
  if (sizes.layers.empty()) return absl::OkStatus();
  const std::string given = absl::StrJoin(sizes.layers, " + ");
  if (static_cast<int>(sizes.layers.size()) != sizes.pipeline) {
    return absl::InvalidArgumentError(absl::StrCat("pipeline-layers: ", sizes.layers.size(), " stages (", given,
                                                   "), but pipeline-parallel-size is ", sizes.pipeline));
  }
  int64_t sum = 0;
  for (const int layers : sizes.layers) {
    if (layers < 1) return absl::InvalidArgumentError("pipeline-layers: a stage needs a layer");
    sum += layers;
  }
  if (sum != config.num_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("pipeline-layers: ", given, " = ", sum, ", but the model has ", config.num_layers, " layers"));
  }
  return absl::OkStatus();
}

absl::Status CheckExpert(const ModelConfig& config, const ParallelSizes& sizes) {
  if (sizes.expert == 1) return absl::OkStatus();
  if (sizes.expert < 1 || sizes.tensor % sizes.expert != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert-parallel-size: ", sizes.expert, " does not divide tensor-parallel-size ", sizes.tensor));
  }
  const int num_experts = config.moe.num_experts;
  if (num_experts == 0) return absl::InvalidArgumentError("expert-parallel-size: the model has no experts");
  if (num_experts < sizes.expert) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert-parallel-size: ", sizes.expert, " parts of ", num_experts, " experts"));
  }
  return absl::OkStatus();
}

}  // namespace

ParallelPlan WholeModel(const ModelConfig& config) { return {.layers = {0, config.num_layers}}; }

absl::StatusOr<std::vector<ParallelPlan>> MakePlans(const ModelConfig& config, const ParallelSizes& sizes) {
  RETURN_IF_ERROR(CheckTensor(config, sizes.tensor));
  RETURN_IF_ERROR(CheckPipeline(config, sizes));
  RETURN_IF_ERROR(CheckExpert(config, sizes));
  RETURN_IF_ERROR(CheckColumns(config, sizes));
  std::vector<double> costs;
  for (int layer = 0; layer < config.num_layers; ++layer) costs.push_back(LayerCost(config, layer));
  const std::vector<int> layers =
      sizes.layers.empty() ? Balance(costs, HeadCost(config), sizes.pipeline) : sizes.layers;
  std::vector<ParallelPlan> plans;
  int64_t first_layer = 0;
  for (int stage = 0; stage < sizes.pipeline; ++stage) {
    const Range range{first_layer, layers[static_cast<size_t>(stage)]};
    for (int tp_rank = 0; tp_rank < sizes.tensor; ++tp_rank) {
      plans.push_back({tp_rank, sizes.tensor, stage, sizes.pipeline, sizes.expert, range});
    }
    first_layer = range.end();
  }
  return plans;
}

}  // namespace weft
