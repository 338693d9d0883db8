#include "engine/rank_parts.h"

#include <algorithm>
#include <utility>

#include "engine/tensor_parallel.h"
#include "kernels/device.h"
#include "kernels/status_macros.h"

namespace weft {

int MaxMessagesAhead(int num_stages) { return std::max(16, 4 * num_stages); }

absl::StatusOr<std::vector<RankCommunicators>> OpenCommunicators(const ParallelSizes& sizes) {
  using Group = std::vector<std::unique_ptr<Communicator>>;
  std::vector<RankCommunicators> ranks(static_cast<size_t>(sizes.num_ranks()));
  const auto at = [&](int stage, int tp_rank) -> RankCommunicators& {
    return ranks[static_cast<size_t>(stage * sizes.tensor + tp_rank)];
  };
  for (int stage = 0; stage < sizes.pipeline && sizes.tensor > 1; ++stage) {
    ASSIGN_OR_RETURN(Group group, OpenGroup(sizes.tensor, 1));
    for (int r = 0; r < sizes.tensor; ++r) at(stage, r).tensor_group = std::move(group[static_cast<size_t>(r)]);
  }
  for (int tp_rank = 0; tp_rank < sizes.tensor && sizes.pipeline > 1; ++tp_rank) {
    ASSIGN_OR_RETURN(Group group, OpenGroup(sizes.pipeline, MaxMessagesAhead(sizes.pipeline)));
    for (int s = 0; s < sizes.pipeline; ++s) at(s, tp_rank).stages = std::move(group[static_cast<size_t>(s)]);
  }
  return ranks;
}

namespace {

// As many tokens as can be, with as many rows of logits; in the slot and the block of no sequence.
Batch LargestStep(const EngineLimits& limits) {
  Batch batch;
  const auto num_tokens = static_cast<int>(std::min<int64_t>(limits.max_num_batched_tokens, limits.max_model_len));
  for (int i = 0; i < num_tokens; ++i) {
    batch.token_ids.push_back(0);
    batch.positions.push_back(i);
    if (i < limits.max_num_logits()) batch.sampling.push_back({0, i + 1, 0});
  }
  batch.row_begin.push_back(num_tokens);
  batch.slots.push_back(limits.max_num_seqs);
  return batch;
}

}  // namespace

absl::StatusOr<WorkerParts> MakeWorkerParts(const ModelConfig& config, const EngineSetup& setup,
                                            const EngineLimits& limits, const ParallelPlan& plan,
                                            std::shared_ptr<const ModelWeights> weights,
                                            RankCommunicators communicators) {
  ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, OpenDevice(setup.device));
  for (std::unique_ptr<Communicator>* group : {&communicators.tensor_group, &communicators.stages}) {
    if (*group != nullptr) *group = backend->GroupOf(std::move(*group));
  }
  const TensorParallel tensor_parallel(plan, *backend, communicators.tensor_group.get());
  ASSIGN_OR_RETURN(Model model, Model::Create(config, plan, std::move(weights), limits, tensor_parallel, *backend));
  const KvCache::Options kv_options{limits.num_blocks, limits.block_size, KvDType(config, setup)};
  ASSIGN_OR_RETURN(KvCache kv_cache, KvCache::Allocate(config, plan, kv_options, *backend));
  ASSIGN_OR_RETURN(StepInput input, StepInput::Allocate(limits, *backend));
  PipelineStage stage(plan, limits.max_num_seqs, communicators.stages.get());
  return WorkerParts{std::move(backend),
                     std::move(communicators.tensor_group),
                     std::move(communicators.stages),
                     plan,
                     std::move(model),
                     std::move(kv_cache),
                     std::move(input),
                     std::move(stage),
                     Sampler(limits.max_num_seqs, config.vocab_size, tensor_parallel),
                     limits.max_num_seqs,
                     limits.max_model_len,
                     LargestStep(limits),
                     nullptr};
}

}  // namespace weft
