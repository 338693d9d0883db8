// Where a model directory keeps its chat template.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"

namespace weft {

// The template in DIR/chat_template.jinja, else in DIR/tokenizer_config.json (of several, the one named "default");
// none when the model has none. It is tried on a short conversation, so that one that never ends is found here. Errors:
// InvalidArgument, "FILE: code: what".
absl::StatusOr<std::optional<ChatTemplate>> LoadChatTemplate(const std::string& model_dir, const Tokenizer& tokenizer);

}  // namespace weft
