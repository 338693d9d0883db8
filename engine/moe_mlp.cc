#include "engine/moe_mlp.h"

#include <algorithm>

#include "engine/expert_parallel.h"
#include "kernels/status_macros.h"

namespace weft {
absl::StatusOr<MoeMlp> MoeMlp::Create(const ModelConfig& config, const ParallelPlan& plan, int64_t max_tokens,
                                      Backend& backend) {
  const auto allocate = [&backend](int64_t count, size_t element) {
    return backend.Allocate(static_cast<size_t>(count) * element);
  };
  const ExpertShard shard = ExpertsOf(config, plan);
  const ExpertRange here = shard.here;
  const MoeConfig& moe = config.moe;
  MoeMlp mlp(moe, here, static_cast<int>(plan.layers.count), backend);
  mlp.inner_ = shard.inner.count;
  const int64_t pairs = max_tokens * moe.num_experts_per_token;
  const int64_t inner = std::max(pairs * shard.inner.count, max_tokens * shard.shared_inner.count);
  ASSIGN_OR_RETURN(mlp.logits_, allocate(max_tokens * moe.num_experts, sizeof(float)));
  ASSIGN_OR_RETURN(mlp.ids_, allocate(pairs, sizeof(int32_t)));
  ASSIGN_OR_RETURN(mlp.weights_, allocate(pairs, sizeof(float)));
  ASSIGN_OR_RETURN(mlp.begin_, allocate(here.count + 1, sizeof(int32_t)));
  ASSIGN_OR_RETURN(mlp.tokens_, allocate(pairs, sizeof(int32_t)));
  ASSIGN_OR_RETURN(mlp.places_, allocate(pairs, sizeof(int32_t)));
  ASSIGN_OR_RETURN(mlp.load_, allocate(plan.layers.count * here.count, sizeof(int64_t)));
  const size_t activation = DTypeBytes(backend.activation_dtype());
  ASSIGN_OR_RETURN(mlp.gate_up_, allocate(2 * inner, activation));
  ASSIGN_OR_RETURN(mlp.gated_, allocate(inner, activation));
  ASSIGN_OR_RETURN(mlp.down_, allocate(pairs * config.hidden_size, activation));
  ASSIGN_OR_RETURN(mlp.shared_gate_, allocate(max_tokens, activation));
  return mlp;
}

void MoeMlp::Run(int layer, const MoeWeights& weights, Tensor normed, Tensor out) {
  const TokenExperts experts{ids_.As<int32_t>(), weights_.As<float>(), normed.rows, moe_.num_experts_per_token};
  const ExpertGroups groups{begin_.As<int32_t>(), tokens_.As<int32_t>(), places_.As<int32_t>(),
                            load_.As<int64_t>() + int64_t{layer} * here_.count};
  const Tensor logits = DenseTensor(logits_.data(), DType::kF32, normed.rows, moe_.num_experts);
  backend_->Linear(normed, weights.router, logits);
  backend_->RouteTokens(logits, moe_.normalize_weights, experts);
  backend_->GroupByExpert(experts, here_, groups);

  const int64_t places = normed.rows * experts.k;
  const Tensor gate_up = View(gate_up_, places, 2 * inner_);
  const Tensor gated = View(gated_, places, inner_);
  const Tensor down = View(down_, places, normed.cols);
  backend_->GroupedLinear(normed, groups.tokens, groups.begin, weights.gate_up, gate_up);
  backend_->SwiGlu(gate_up, gated);
  backend_->GroupedLinear(gated, nullptr, groups.begin, weights.down, down);
  backend_->CombineExperts(down, experts, groups.places, out);
  if (weights.shared.has_value()) RunShared(*weights.shared, normed, out);
}

void MoeMlp::RunShared(const SharedExpertWeights& weights, Tensor normed, Tensor out) {
  const Tensor gate = View(shared_gate_, normed.rows, 1);
  const Tensor gate_up = View(gate_up_, normed.rows, weights.gate_up.out_features);
  const Tensor gated = View(gated_, normed.rows, weights.down.in_features);
  const Tensor down = View(down_, normed.rows, normed.cols);
  backend_->Linear(normed, weights.gate, gate);
  backend_->Linear(normed, weights.gate_up, gate_up);
  backend_->SwiGlu(gate_up, gated);
  backend_->Linear(gated, weights.down, down);
  backend_->AddGated(gate, down, out);
}

void MoeMlp::CopyLoad(ExpertLoad& load) const {
  load.here = here_;
  load.num_layers = num_layers_;
  load.num_tokens.resize(load_.bytes() / sizeof(int64_t));
  backend_->CopyToHost(load.num_tokens.data(), load_.data(), load_.bytes());
}

}  // namespace weft
