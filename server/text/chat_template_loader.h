#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/text/chat_template.h"
#include "server/text/file_check.h"

namespace weft {

// The chat templates of one model directory. Immutable; any number of threads may render.
struct ChatTemplates {
  ChatTemplate main;
  std::optional<ChatTemplate> tool_use;  // a second one, for requests with tools; few models have it

  const ChatTemplate& For(bool has_tools) const { return has_tools && tool_use ? *tool_use : main; }
};

// Reads chat_template.jinja, or else `chat_template` of tokenizer_config.json: a source, or a list of {name, template}
// of which "default" and "tool_use" count. bos_token and eos_token are those of tokenizer_config.json. Each template is
// then rendered once with a short conversation, so that one which runs out of budget on nothing is refused here.
//
// Errors name the file: InvalidArgument "tokenizer_config.json: template_invalid: line N: ...", NotFound
// "DIR: template_not_found: ..." when the model has no template; those of `check`.
absl::StatusOr<ChatTemplates> LoadChatTemplate(const std::string& dir, const FileCheck& check = nullptr);

}  // namespace weft
