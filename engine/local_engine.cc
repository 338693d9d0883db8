#include "engine/local_engine.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/batch.h"
#include "engine/channel.h"
#include "engine/weights.h"
#include "engine/worker.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

constexpr int kMaxInFlight = 2;  // one executes, one waits

// Activations are F32; keys and values are kept as exactly as the weights are.
DType KvDType(const ModelConfig& config, const LocalEngineOptions& options) {
  const DType weights = options.weights.dtype.value_or(config.dtype);
  return weights == DType::kF32 ? DType::kF32 : DType::kBF16;
}

absl::StatusOr<EngineLimits> LimitsFor(const ModelConfig& config, const LocalEngineOptions& options) {
  const int64_t block_bytes = KvCache::BlockBytes(config, options.block_size, KvDType(config, options));
  const int64_t num_blocks = std::min<int64_t>(options.kv_cache_bytes / block_bytes, std::numeric_limits<int>::max());
  const int64_t needed = KvCacheBytes(config, options, options.max_model_len) / block_bytes;
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
                      .vocab_size = config.vocab_size};
}

// By all threads of the device, whose memory outlives its backend.
absl::StatusOr<std::shared_ptr<const ModelWeights>> LoadSharedWeights(const ModelConfig& config,
                                                                      const LocalEngineOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, OpenDevice(options.device));
  ASSIGN_OR_RETURN(ModelWeights weights, LoadWeights(options.model_dir, config, options.weights, *backend));
  return std::make_shared<const ModelWeights>(std::move(weights));
}

class LocalEngine final : public Engine {
 public:
  LocalEngine(const EngineLimits& limits, std::unique_ptr<Backend> backend, WorkerParts parts)
      : limits_(limits), backend_(std::move(backend)), worker_(std::move(parts), inbox_, results_) {
    thread_ = std::thread([this] { worker_.Run(); });
  }

  ~LocalEngine() override {
    inbox_.Close();
    thread_.join();
  }

  const EngineLimits& limits() const override { return limits_; }
  bool HasRoom() const override { return num_in_flight_ < kMaxInFlight; }
  bool HasInFlight() const override { return num_in_flight_ > 0; }

  void Submit(const Batch& batch) override {
    CHECK(HasRoom(), "Submit requires room");
    ++num_in_flight_;
    inbox_.Push(batch);
  }

  absl::StatusOr<StepResult> Collect() override {
    CHECK(HasInFlight(), "Collect requires a step in flight");
    --num_in_flight_;
    return *results_.Pop();
  }

 private:
  const EngineLimits limits_;
  std::unique_ptr<Backend> backend_;
  Channel<Batch> inbox_;
  Channel<absl::StatusOr<StepResult>> results_;
  Worker worker_;
  std::thread thread_;
  int num_in_flight_ = 0;
};

}  // namespace

int64_t KvCacheBytes(const ModelConfig& config, const LocalEngineOptions& options, int64_t num_tokens) {
  const int64_t num_blocks = (num_tokens + options.block_size - 1) / options.block_size;
  return num_blocks * KvCache::BlockBytes(config, options.block_size, KvDType(config, options));
}

absl::StatusOr<std::vector<std::unique_ptr<Engine>>> OpenLocalEngines(const ModelConfig& config,
                                                                      const LocalEngineOptions& options, int count) {
  ASSIGN_OR_RETURN(const EngineLimits limits, LimitsFor(config, options));
  ASSIGN_OR_RETURN(const std::shared_ptr<const ModelWeights> weights, LoadSharedWeights(config, options));
  std::vector<std::unique_ptr<Engine>> engines;
  for (int i = 0; i < count; ++i) {
    const DeviceOptions share{options.device.kind, std::max(1, NumThreads(options.device) / count)};
    ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, OpenDevice(share));
    ASSIGN_OR_RETURN(Model model, Model::Create(config, weights, limits, *backend));
    const KvCache::Options kv_options{limits.num_blocks, limits.block_size, KvDType(config, options)};
    ASSIGN_OR_RETURN(KvCache kv_cache, KvCache::Allocate(config, kv_options, *backend));
    ASSIGN_OR_RETURN(StepInput input, StepInput::Allocate(limits, *backend));
    WorkerParts parts{*backend, std::move(model), std::move(kv_cache), std::move(input),
                      Sampler(limits.max_num_seqs, *backend)};
    engines.push_back(std::make_unique<LocalEngine>(limits, std::move(backend), std::move(parts)));
  }
  return engines;
}

}  // namespace weft
