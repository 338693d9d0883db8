// A model directory, loaded: all that is needed to serve it.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/model_config.h"
#include "server/config.h"
#include "server/generation_service.h"
#include "server/loading_progress.h"
#include "server/text/chat_template_loader.h"
#include "server/text/tokenizer.h"

namespace weft {

struct ServedModel {
  ModelInfo info;
  GenerationConfig defaults;
  std::vector<int32_t> eos_token_ids;
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<ChatTemplates> chat_templates;
  std::unique_ptr<EngineSource> engine_source;   // opens them again
  std::vector<std::unique_ptr<Engine>> engines;  // one a replica, warm
  std::vector<std::string> warnings;             // what the directory holds and Weft ignores, a line each
};

// LoadServedModel, or what a test puts in its place.
using ModelLoader = std::function<absl::StatusOr<ServedModel>(const Config& config, const LoadingProgress& progress)>;

// Any error means that the directory, or a setting, can't be served; its message names the file or the setting, and the
// field.
absl::StatusOr<ServedModel> LoadServedModel(const Config& config, const LoadingProgress& progress);

}  // namespace weft
