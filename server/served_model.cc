#include "server/served_model.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "engine/local_engine.h"
#include "engine/memory_need.h"
#include "engine/remote/remote_engine.h"
#include "kernels/cpu/isa.h"
#include "kernels/status_macros.h"
#include "server/engine_keeper.h"
#include "server/machine.h"
#include "server/manifest_file.h"
#include "server/model_fingerprint.h"
#include "server/text/stand_in_tokenizer.h"
#include "server/version.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

// Calls `progress` with the time since the phase before it.
class Phases {
 public:
  explicit Phases(const LoadingProgress& progress) : progress_(progress) {}
  void End(absl::string_view phase, double done) {
    const absl::Time now = absl::Now();
    done_ = done;
    if (progress_.on_phase != nullptr) progress_.on_phase(phase, now - std::exchange(start_, now), done);
  }

  // Tells of the phase that is under way, which will end with `done` of the loading.
  LoadObserver Observe(const std::string& phase, double done) const {
    const auto on_share = [&progress = progress_, phase, begin = done_, done](double share) {
      if (progress.on_share != nullptr) progress.on_share(phase, share, begin + share * (done - begin));
    };
    on_share(0);
    return {.on_bytes = [on_share](int64_t so_far,
                                   int64_t all) { on_share(static_cast<double>(so_far) / static_cast<double>(all)); },
            .on_phase =
                [&progress = progress_, phase](absl::string_view part, absl::Duration took) {
                  if (progress.on_part != nullptr) progress.on_part(absl::StrCat(phase, "_", part), took);
                }};
  }

 private:
  const LoadingProgress& progress_;
  absl::Time start_ = absl::Now();
  double done_ = 0;
};

absl::Status CheckDirectory(const std::string& dir) {
  std::error_code error;
  if (std::filesystem::is_directory(dir, error)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("model: '", dir, "' is not a directory"));
}

// "models/llama" and "models/llama/" are both served as "llama".
std::string BaseName(const std::string& dir) {
  const std::filesystem::path path = std::filesystem::absolute(dir).lexically_normal();
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

// A shape is measured by its config.json alone, so dummy weights need no tokenizer.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const ModelOptions& options, const FileCheck& check,
                                                         int32_t vocab_size, std::vector<std::string>& warnings) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(options.dir, check);
  if (options.load_format != LoadFormat::kDummy || !absl::IsNotFound(tokenizer.status())) return tokenizer;
  warnings.push_back("there is no tokenizer.json: every byte is a token, and other tokens spell their number");
  return MakeStandInTokenizer(vocab_size);
}

// What the process may use of the machine's memory.
int64_t UsableMemory() {
  const Machine machine = InspectMachine();
  constexpr int64_t kUnknown = int64_t{4} << 30;  // /proc is hidden: a guess that most machines hold
  const int64_t total = machine.memory_bytes.value_or(kUnknown);
  return std::min(total, machine.memory_limit_bytes.value_or(total));
}

// Longest context and size of each replica's KV cache, where the operator leaves them open: the model's own limit, and
// a cache for max-num-seqs such sequences, as far as a quarter of the memory holds them for all replicas. Only when
// both are open does the context shrink to what the cache holds; a cache that was asked for and is too small is refused
// by the engine, with arithmetic.
absl::Status SizeContext(const ModelOptions& model, const EngineOptions& engine, const ModelConfig& config,
                         EngineSetup& options) {
  const int64_t trained = config.max_position_embeddings;
  if (model.max_model_len > trained) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max-model-len: ", model.max_model_len, " tokens are more than the model's max_position_embeddings ", trained));
  }
  if (model.max_model_len == 1) {
    return absl::InvalidArgumentError("max-model-len: 1 token leaves no room for a prompt and an output");
  }
  ASSIGN_OR_RETURN(const int64_t block_bytes, KvCacheBytes(config, options, options.block_size));
  const int64_t budget = (engine.kv_cache_bytes > 0 ? engine.kv_cache_bytes : UsableMemory() / 4) / engine.replicas;
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

// On this machine, before anything is read or allocated for it. Where ranks are on other hosts too, nobody here knows
// what those have.
absl::Status CheckMachine(const Config& config, const ModelConfig& model, const EngineSetup& setup,
                          std::vector<std::string>& warnings) {
  if (config.workers.num_nodes > 1) return absl::OkStatus();
  const int weight_copies = config.workers.kind == WorkerKind::kThreads ? 1 : config.engine.replicas;
  ASSIGN_OR_RETURN(const MemoryNeed need, MemoryNeedOf(model, setup, config.engine.replicas, weight_copies));
  RETURN_IF_ERROR(CheckMemory(need, UsableMemory()));
  const int num_ranks = setup.parallel.num_ranks() * config.engine.replicas;
  const int num_cores = NumThreads({});
  if (num_ranks > 1 && num_ranks > num_cores) {
    warnings.push_back(absl::StrCat(num_ranks, " ranks (replicas x tensor-parallel-size x pipeline-parallel-size) on ",
                                    num_cores, " cores wait for each other: expect no speed from them"));
  }
  return absl::OkStatus();
}

EngineSetup EngineOptionsFor(const Config& config) {
  EngineSetup options;
  options.model_dir = config.model.dir;
  options.weights.format = config.model.load_format;
  options.weights.dtype = config.model.weight_dtype;
  options.device.num_threads = config.engine.threads;
  options.parallel = {.tensor = config.engine.tensor_parallel_size,
                      .pipeline = config.engine.pipeline_parallel_size,
                      .expert = config.engine.expert_parallel_size,
                      .layers = *ParsePipelineLayers(config.engine.pipeline_layers)};  // Validate has read it
  options.max_num_seqs = config.engine.max_num_seqs;
  options.max_num_batched_tokens = config.engine.max_num_batched_tokens;
  options.block_size = config.engine.block_size;
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
  return options;
}

absl::StatusOr<std::unique_ptr<EngineSource>> OpenEngineSource(const Config& config, const ModelConfig& model,
                                                               const EngineSetup& setup) {
  if (config.workers.kind == WorkerKind::kThreads) return LocalEngines::Load(model, setup, config.engine.replicas);
  return RemoteEngines::Start(model, setup, RemoteOptionsFor(config));
}

// The tokenizer's end of sequence counts too: of some families config.json names only the base model's.
std::vector<int32_t> EosIds(const ModelConfig& config, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = config.eos_token_ids;
  const std::optional<int32_t> own = tokenizer.TokenId(tokenizer.eos_token());
  if (own.has_value() && std::find(ids.begin(), ids.end(), *own) == ids.end()) ids.push_back(*own);
  return ids;
}

}  // namespace

absl::StatusOr<ServedModel> LoadServedModel(const Config& config, const LoadingProgress& progress) {
  Phases phases(progress);
  const std::string& dir = config.model.dir;
  RETURN_IF_ERROR(CheckDirectory(dir));
  ASSIGN_OR_RETURN(const ModelDir files, OpenModelDir(config.model));
  const FileCheck check = CheckAgainst(files);

  ServedModel model;
  ASSIGN_OR_RETURN(const ModelConfig model_config, LoadModelConfig(files));
  ASSIGN_OR_RETURN(model.defaults, LoadGenerationConfig(files));
  model.warnings = model_config.warnings;
  phases.End("config", 0.01);

  ASSIGN_OR_RETURN(model.tokenizer, LoadTokenizer(config.model, check, model_config.vocab_size, model.warnings));
  RETURN_IF_ERROR(model.tokenizer->CheckModel(model_config.vocab_size, model_config.bos_token_id));
  model.eos_token_ids = EosIds(model_config, *model.tokenizer);
  phases.End("tokenizer", 0.1);

  absl::StatusOr<ChatTemplates> templates = LoadChatTemplate(dir, check);
  if (templates.ok()) model.chat_templates.emplace(*std::move(templates));
  if (!templates.ok() && !absl::IsNotFound(templates.status())) return templates.status();
  phases.End("chat_template", 0.11);

  EngineSetup options = EngineOptionsFor(config);
  options.model_dir = files;
  RETURN_IF_ERROR(SizeContext(config.model, config.engine, model_config, options));
  RETURN_IF_ERROR(CheckMachine(config, model_config, options, model.warnings));
  options.weights.observer = phases.Observe("weights", 0.95);
  ASSIGN_OR_RETURN(model.engine_source, OpenEngineSource(config, model_config, options));
  phases.End("weights", 0.95);
  if (config.model.max_model_len == 0 && options.max_model_len < model_config.max_position_embeddings) {
    model.warnings.push_back(absl::StrCat("max-model-len is ", options.max_model_len, ", not the model's ",
                                          model_config.max_position_embeddings,
                                          ": a quarter of the memory holds no more; see kv-cache-memory"));
  }

  ASSIGN_OR_RETURN(model.engines, OpenWarmEngines(*model.engine_source, config.engine.replicas));
  phases.End("warm_up", 1.0);

  model.info.names = config.model.served_names;
  if (model.info.names.empty()) model.info.names = {BaseName(dir)};
  model.info.root = dir;
  model.info.created = absl::Now();
  model.info.max_model_len = options.max_model_len;
  model.info.vocab_size = model_config.vocab_size;
  model.info.fingerprint = ModelFingerprint(config.model, files);
  return model;
}

}  // namespace weft
