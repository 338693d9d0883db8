#include "server/engine_plan.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/local_engine.h"
#include "engine/memory_need.h"
#include "engine/remote/remote_engine.h"
#include "kernels/device.h"
#include "kernels/status_macros.h"
#include "server/machine.h"
#include "server/version.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

// What a replica's KV cache may have, where the operator leaves it open: a quarter of the host's memory for all
// replicas; on CUDA devices, what weights and steps leave of each rank's.
absl::StatusOr<int64_t> KvBudget(const EngineOptions& engine, const DeviceChoice& choice, const ModelConfig& config,
                                 const EngineSetup& setup) {
  if (choice.device.kind == DeviceKind::kCpu) return UsableMemory() / 4 / engine.replicas;
  ASSIGN_OR_RETURN(const std::vector<ParallelPlan> plans, MakePlans(config, setup.parallel));
  int64_t most = 0;
  for (const ParallelPlan& plan : plans) {
    const MemoryNeed need = MemoryNeedOf(config, setup, {plan});
    most = std::max(most, need.weights + need.step);
  }
  return std::max(int64_t{0}, choice.device_memory_bytes - most) * static_cast<int64_t>(plans.size());
}

// Longest context and size of each replica's KV cache, where the operator leaves them open: the model's own limit, and
// a cache for max-num-seqs such sequences, as far as its budget holds them. Only when both are open does the context
// shrink to what the cache holds; a cache that was asked for and is too small is refused by the engine, with
// arithmetic.
absl::Status SizeContext(const ModelOptions& model, const EngineOptions& engine, const DeviceChoice& choice,
                         const ModelConfig& config, EngineSetup& options) {
  const int64_t trained = config.max_position_embeddings;
  if (model.max_model_len > trained) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max-model-len: ", model.max_model_len, " tokens are more than the model's max_position_embeddings ", trained));
  }
  if (model.max_model_len == 1) {
    return absl::InvalidArgumentError("max-model-len: 1 token leaves no room for a prompt and an output");
  }
  ASSIGN_OR_RETURN(const int64_t block_bytes, KvCacheBytes(config, options, options.block_size));
  int64_t budget = engine.kv_cache_bytes / engine.replicas;
  if (budget == 0) {
    ASSIGN_OR_RETURN(budget, KvBudget(engine, choice, config, options));
  }
  const int64_t budget_tokens = budget / block_bytes * options.block_size;
  const bool both_open = model.max_model_len == 0 && engine.kv_cache_bytes == 0;
  const int64_t longest = both_open ? std::clamp<int64_t>(budget_tokens, 2, trained) : trained;
  options.max_model_len = model.max_model_len > 0 ? model.max_model_len : longest;
  options.kv_cache_bytes = budget;
  if (engine.kv_cache_bytes > 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t sequence_bytes, KvCacheBytes(config, options, options.max_model_len));
  options.kv_cache_bytes = std::min(budget, sequence_bytes * engine.max_num_seqs);
  return absl::OkStatus();
}

// Each rank has a device.
absl::Status CheckDevices(const DeviceChoice& choice, const ModelConfig& model, const EngineSetup& setup,
                          const std::vector<ParallelPlan>& plans) {
  for (const ParallelPlan& plan : plans) {
    RETURN_IF_ERROR(CheckMemory(MemoryNeedOf(model, setup, {plan}), choice.device_memory_bytes));
  }
  return absl::OkStatus();
}

// On this machine, before anything is read or allocated for it.
absl::Status CheckMachine(const Config& config, const DeviceChoice& choice, const ModelConfig& model,
                          const EngineSetup& setup, std::vector<std::string>& warnings) {
  const int num_nodes = config.workers.num_nodes;
  ASSIGN_OR_RETURN(std::vector<ParallelPlan> plans, MakePlans(model, setup.parallel));
  plans.resize(plans.size() / static_cast<size_t>(num_nodes));  // the first are here
  if (choice.device.kind == DeviceKind::kCuda) return CheckDevices(choice, model, setup, plans);
  MemoryNeed need = MemoryNeedOf(model, setup, plans);
  need.step *= config.engine.replicas;
  if (choice.workers != WorkerKind::kThreads) need.weights *= config.engine.replicas;  // threads share them
  need.kv_cache *= config.engine.replicas;
  need.messages *= config.engine.replicas;
  RETURN_IF_ERROR(CheckMemory(need, UsableMemory()));
  const int num_ranks = static_cast<int>(plans.size()) * config.engine.replicas;
  const int num_cores = NumThreads({});
  if (num_ranks > 1 && num_ranks > num_cores) {
    warnings.push_back(absl::StrCat(num_ranks, " ranks (replicas x tensor-parallel-size x pipeline-parallel-size) on ",
                                    num_cores, " cores wait for each other: expect no speed from them"));
  }
  return absl::OkStatus();
}

EngineSetup SetupFor(const Config& config, const DeviceChoice& choice, const ModelDir& files) {
  EngineSetup options;
  options.model_dir = files;
  options.weights.format = config.model.load_format;
  options.weights.dtype = config.model.weight_dtype;
  options.device = choice.device;
  options.parallel = {.tensor = config.engine.tensor_parallel_size,
                      .pipeline = config.engine.pipeline_parallel_size,
                      .expert = config.engine.expert_parallel_size,
                      .layers = *ParsePipelineLayers(config.engine.pipeline_layers)};  // Validate has read it
  options.max_num_seqs = config.engine.max_num_seqs;
  options.max_num_batched_tokens = config.engine.max_num_batched_tokens;
  options.block_size = config.engine.block_size;
  options.step_timeout = config.workers.step_timeout;
  return options;
}

std::string HostOf(const std::string& host_port) { return host_port.substr(0, host_port.rfind(':')); }

RemoteOptions RemoteOptionsFor(const Config& config) {
  const WorkerOptions& workers = config.workers;
  RemoteOptions options{.num_replicas = config.engine.replicas,
                        .num_nodes = workers.num_nodes,
                        .coordinator = {.version = std::string(Version()),
                                        .num_nodes = workers.num_nodes,
                                        .address = workers.coordinator,
                                        .tls = {workers.tls_cert_file, workers.tls_key_file, workers.tls_ca_file},
                                        .log = [](absl::string_view line) { spdlog::warn("{}", std::string(line)); }},
                        .address = HostOf(workers.coordinator),
                        .command = absl::StrSplit(workers.wrapper, ' ', absl::SkipEmpty()),
                        .join_timeout = workers.join_timeout,
                        .step_timeout = workers.step_timeout};
  // By our own process: the same build, also when another has been installed meanwhile.
  options.command.push_back(absl::StrCat("/proc/", getpid(), "/exe"));
  options.command.push_back("worker");
  for (char** variable = environ; *variable != nullptr; ++variable) options.environment.emplace_back(*variable);
  // A service may have the variable of a user who isn't logged in: the directory is not there then.
  const char* const runtime_dir = std::getenv("XDG_RUNTIME_DIR");
  if (runtime_dir != nullptr && std::strlen(runtime_dir) <= kMaxRuntimeDirBytes &&
      access(runtime_dir, W_OK | X_OK) == 0) {
    options.coordinator.runtime_dir = runtime_dir;
  }
  return options;
}

}  // namespace

absl::StatusOr<EnginePlan> PlanEngines(const Config& config, const ModelDir& files, const ModelConfig& model,
                                       std::vector<std::string>& warnings) {
  ASSIGN_OR_RETURN(const DeviceChoice choice, ChooseDevice(config, model, FindCuda()));
  EnginePlan plan{.setup = SetupFor(config, choice, files), .workers = choice.workers};
  RETURN_IF_ERROR(SizeContext(config.model, config.engine, choice, model, plan.setup));
  RETURN_IF_ERROR(CheckMachine(config, choice, model, plan.setup, warnings));
  return plan;
}

absl::StatusOr<std::unique_ptr<EngineSource>> OpenEngineSource(const Config& config, const ModelConfig& model,
                                                               const EnginePlan& plan) {
  if (plan.workers == WorkerKind::kThreads) return LocalEngines::Load(model, plan.setup, config.engine.replicas);
  return RemoteEngines::Start(model, plan.setup, RemoteOptionsFor(config));
}

}  // namespace weft
