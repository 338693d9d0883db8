#include "engine/local_engine.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/batch.h"
#include "engine/channel.h"
#include "engine/parallel_plan.h"
#include "engine/weights.h"
#include "engine/worker.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

using SharedWeights = std::shared_ptr<const ModelWeights>;

// Activations are F32; keys and values are kept as exactly as the weights are.
DType KvDType(const ModelConfig& config, const LocalEngineOptions& options) {
  const DType weights = options.weights.dtype.value_or(config.dtype);
  return weights == DType::kF32 ? DType::kF32 : DType::kBF16;
}

int64_t BlockBytes(const ModelConfig& config, const LocalEngineOptions& options,
                   const std::vector<ParallelPlan>& plans) {
  int64_t bytes = 0;
  for (const ParallelPlan& plan : plans) {
    bytes += KvCache::BlockBytes(config, plan, options.block_size, KvDType(config, options));
  }
  return bytes;
}

int64_t NumBlocks(const LocalEngineOptions& options, int64_t num_tokens) {
  return (num_tokens + options.block_size - 1) / options.block_size;
}

absl::StatusOr<EngineLimits> LimitsFor(const ModelConfig& config, const LocalEngineOptions& options,
                                       const std::vector<ParallelPlan>& plans) {
  const int64_t block_bytes = BlockBytes(config, options, plans);
  const int64_t num_blocks = std::min<int64_t>(options.kv_cache_bytes / block_bytes, std::numeric_limits<int>::max());
  const int64_t needed = NumBlocks(options, options.max_model_len);
  if (num_blocks < needed) {
    return absl::InvalidArgumentError(absl::StrCat(
        "kv-cache-memory: ", options.kv_cache_bytes, " bytes a replica are ", num_blocks, " blocks of ", block_bytes,
        " bytes, fewer than the ", needed, " that one sequence of max-model-len ", options.max_model_len, " needs"));
  }
  return EngineLimits{.max_model_len = options.max_model_len,
                      .num_blocks = static_cast<int>(num_blocks),
                      .block_size = options.block_size,
                      .max_num_seqs = options.max_num_seqs,
                      .max_num_batched_tokens = options.max_num_batched_tokens,
                      .vocab_size = config.vocab_size,
                      .num_stages = plans.back().num_stages};
}

// Each rank's, by all threads of the device, whose memory outlives its backend.
absl::StatusOr<std::vector<SharedWeights>> LoadSharedWeights(const ModelConfig& config,
                                                             const LocalEngineOptions& options,
                                                             const std::vector<ParallelPlan>& plans) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, OpenDevice(options.device));
  ASSIGN_OR_RETURN(std::vector<ModelWeights> loaded,
                   LoadRanks(options.model_dir, config, plans, options.weights, *backend));
  std::vector<SharedWeights> ranks;
  for (ModelWeights& weights : loaded) ranks.push_back(std::make_shared<const ModelWeights>(std::move(weights)));
  return ranks;
}

// One thread a rank. A rank's error aborts the others, which may wait for it, and ends the engine.
class LocalEngine final : public Engine {
 public:
  LocalEngine(const EngineLimits& limits, std::vector<WorkerParts> ranks) : limits_(limits) {
    for (WorkerParts& parts : ranks) ranks_.push_back(std::make_unique<Rank>(std::move(parts)));
    for (const auto& rank : ranks_) rank->thread = std::thread([this, &rank = *rank] { Run(rank); });
  }

  ~LocalEngine() override {
    for (const auto& rank : ranks_) rank->inbox.Close();
    for (const auto& rank : ranks_) rank->thread.join();
  }

  const EngineLimits& limits() const override { return limits_; }
  bool HasRoom() const override { return num_in_flight_ < 2 * limits_.num_stages; }
  bool HasInFlight() const override { return num_in_flight_ > 0; }

  void Submit(const Batch& batch) override {
    CHECK(HasRoom(), "Submit requires room");
    ++num_in_flight_;
    for (const auto& rank : ranks_) rank->inbox.Push(batch);
  }

  absl::StatusOr<StepResult> Collect() override {
    CHECK(HasInFlight(), "Collect requires a step in flight");
    if (!error_.ok()) return error_;
    absl::StatusOr<StepResult> result = *results_.Pop();
    error_ = result.status();
    --num_in_flight_;
    return result;
  }

 private:
  struct Rank {
    explicit Rank(WorkerParts parts) : worker(std::move(parts)) {}

    Worker worker;
    Channel<Batch> inbox;
    std::thread thread;
  };

  void Run(Rank& rank) {
    while (std::optional<Batch> batch = rank.inbox.Pop()) {
      absl::StatusOr<StepResult> result = rank.worker.Step(*batch);
      const bool is_ok = result.ok();
      if (!is_ok) Abort(result.status());
      if (!is_ok || rank.worker.IsReporter()) results_.Push(std::move(result));
      if (!is_ok) return;
    }
  }

  void Abort(const absl::Status& status) {
    for (const auto& rank : ranks_) rank->worker.Abort(status);
  }

  const EngineLimits limits_;
  Channel<absl::StatusOr<StepResult>> results_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  int num_in_flight_ = 0;
  absl::Status error_;
};

struct RankCommunicators {
  std::unique_ptr<Communicator> tensor_group;
  std::unique_ptr<Communicator> stages;
};

// By rank: a group for each stage's ranks, and one for the ranks of the same tp_rank in all stages.
absl::StatusOr<std::vector<RankCommunicators>> OpenCommunicators(DeviceKind kind, const ParallelSizes& sizes) {
  using Group = std::vector<std::unique_ptr<Communicator>>;
  std::vector<RankCommunicators> ranks(static_cast<size_t>(sizes.num_ranks()));
  const auto at = [&](int stage, int tp_rank) -> RankCommunicators& {
    return ranks[static_cast<size_t>(stage * sizes.tensor + tp_rank)];
  };
  for (int stage = 0; stage < sizes.pipeline && sizes.tensor > 1; ++stage) {
    ASSIGN_OR_RETURN(Group group, OpenGroup(kind, sizes.tensor, 1));
    for (int r = 0; r < sizes.tensor; ++r) at(stage, r).tensor_group = std::move(group[static_cast<size_t>(r)]);
  }
  // Room for every step in flight, or stages that wait for each other's room would stand still.
  const int max_messages_ahead = std::max(16, 4 * sizes.pipeline);
  for (int tp_rank = 0; tp_rank < sizes.tensor && sizes.pipeline > 1; ++tp_rank) {
    ASSIGN_OR_RETURN(Group group, OpenGroup(kind, sizes.pipeline, max_messages_ahead));
    for (int s = 0; s < sizes.pipeline; ++s) at(s, tp_rank).stages = std::move(group[static_cast<size_t>(s)]);
  }
  return ranks;
}

absl::StatusOr<WorkerParts> MakeParts(const ModelConfig& config, const LocalEngineOptions& options,
                                      const EngineLimits& limits, const ParallelPlan& plan, SharedWeights weights,
                                      RankCommunicators communicators, const DeviceOptions& device) {
  ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, OpenDevice(device));
  const TensorParallel tensor_parallel(plan, *backend, communicators.tensor_group.get());
  ASSIGN_OR_RETURN(Model model, Model::Create(config, plan, std::move(weights), limits, tensor_parallel, *backend));
  const KvCache::Options kv_options{limits.num_blocks, limits.block_size, KvDType(config, options)};
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
                     Sampler(limits.max_num_seqs, config.vocab_size, tensor_parallel)};
}

}  // namespace

absl::StatusOr<int64_t> KvCacheBytes(const ModelConfig& config, const LocalEngineOptions& options, int64_t num_tokens) {
  ASSIGN_OR_RETURN(const std::vector<ParallelPlan> plans, MakePlans(config, options.parallel));
  return NumBlocks(options, num_tokens) * BlockBytes(config, options, plans);
}

absl::StatusOr<std::vector<std::unique_ptr<Engine>>> OpenLocalEngines(const ModelConfig& config,
                                                                      const LocalEngineOptions& options, int count) {
  ASSIGN_OR_RETURN(const std::vector<ParallelPlan> plans, MakePlans(config, options.parallel));
  ASSIGN_OR_RETURN(const EngineLimits limits, LimitsFor(config, options, plans));
  ASSIGN_OR_RETURN(const std::vector<SharedWeights> weights, LoadSharedWeights(config, options, plans));
  const int num_ranks = count * static_cast<int>(plans.size());
  const DeviceOptions share{options.device.kind, std::max(1, NumThreads(options.device) / num_ranks)};
  std::vector<std::unique_ptr<Engine>> engines;
  for (int i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(std::vector<RankCommunicators> communicators, OpenCommunicators(share.kind, options.parallel));
    std::vector<WorkerParts> ranks;
    for (size_t rank = 0; rank < plans.size(); ++rank) {
      ASSIGN_OR_RETURN(WorkerParts parts, MakeParts(config, options, limits, plans[rank], weights[rank],
                                                    std::move(communicators[rank]), share));
      ranks.push_back(std::move(parts));
    }
    engines.push_back(std::make_unique<LocalEngine>(limits, std::move(ranks)));
  }
  return engines;
}

}  // namespace weft
