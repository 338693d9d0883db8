// The conversation in a chat request: messages and tools, checked and made ready for a chat template.
#pragma once

#include <cstddef>

#include "server/generate_request.h"
#include "server/json_fields.h"

namespace weft {

inline constexpr size_t kMaxMessages = 2048;
inline constexpr size_t kMaxTools = 128;

// What a template sees of `messages`, `tools`, `add_generation_prompt` and `chat_template_kwargs`:
// - a message has `role` and the fields that templates of tools use; its `content` is one string (text parts are joined
//   by a line feed), or null where an assistant only calls tools;
// - `developer` is another word for `system`, which templates know;
// - `arguments` of a tool call are an object, where the client's string holds one;
// - tools are left out where `tool_choice` is "none".
// Errors go to `fields`.
ChatPrompt ReadChatPrompt(JsonFields& fields);

}  // namespace weft
