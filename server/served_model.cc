#include "server/served_model.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/cpu/isa.h"
#include "kernels/status_macros.h"
#include "server/engine_keeper.h"
#include "server/engine_plan.h"
#include "server/manifest_file.h"
#include "server/model_fingerprint.h"
#include "server/text/stand_in_tokenizer.h"

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

  ASSIGN_OR_RETURN(EnginePlan plan, PlanEngines(config, files, model_config, model.warnings));
  plan.setup.weights.observer = phases.Observe("weights", 0.95);
  ASSIGN_OR_RETURN(model.engine_source, OpenEngineSource(config, model_config, plan));
  const bool are_loaded = plan.workers == WorkerKind::kThreads;  // processes load when engines open
  if (are_loaded) phases.End("weights", 0.95);
  if (config.model.max_model_len == 0 && plan.setup.max_model_len < model_config.max_position_embeddings) {
    model.warnings.push_back(absl::StrCat("max-model-len is ", plan.setup.max_model_len, ", not the model's ",
                                          model_config.max_position_embeddings,
                                          ": the KV cache holds no more; see kv-cache-memory"));
  }

  ASSIGN_OR_RETURN(model.engines, OpenWarmEngines(*model.engine_source, config.engine.replicas));
  phases.End(are_loaded ? "warm_up" : "weights", 1.0);

  model.info.names = config.model.served_names;
  if (model.info.names.empty()) model.info.names = {BaseName(dir)};
  model.info.root = dir;
  model.info.created = absl::Now();
  model.info.max_model_len = plan.setup.max_model_len;
  model.info.vocab_size = model_config.vocab_size;
  model.info.fingerprint = ModelFingerprint(config.model, files);
  return model;
}

}  // namespace weft
