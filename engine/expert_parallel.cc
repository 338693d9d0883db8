#include "engine/expert_parallel.h"

namespace weft {

ExpertShard ExpertsOf(const ModelConfig& config, const ParallelPlan& plan) {
  const MoeConfig& moe = config.moe;
  const int ranks_an_expert = plan.tp_size / plan.ep_size;
  const Range experts = ShardOf(moe.num_experts, plan.tp_rank / ranks_an_expert, plan.ep_size);
  return {{static_cast<int>(experts.begin), static_cast<int>(experts.count)},
          ShardOf(moe.intermediate_size, plan.tp_rank % ranks_an_expert, ranks_an_expert),
          ShardOf(moe.shared_intermediate_size, plan.tp_rank, plan.tp_size)};
}

}  // namespace weft
