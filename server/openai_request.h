// Requests of the OpenAI API: JSON into GenerateRequest.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "server/generate_request.h"
#include "server/json_parse.h"

namespace weft {

inline constexpr size_t kMaxPrompts = 32;  // of one completion request

// A body of /v1/completions or /v1/chat/completions. Every known field has its type here; ranges are the service's to
// judge. Unknown fields are ignored, as SDKs send new ones; known ones that Weft does not do are refused, because
// ignoring them would give a wrong answer.
struct OpenAiRequest {
  std::vector<GenerateRequest> prompts;  // equal but for the prompt; more than one only for /v1/completions
  bool stream = false;
  bool include_usage = false;
};

absl::StatusOr<OpenAiRequest> ParseCompletionRequest(const Json& body);
absl::StatusOr<OpenAiRequest> ParseChatRequest(const Json& body);

// Bodies of /tokenize (a `prompt` or `messages`) and /detokenize, as vLLM has them.
struct TokenizeRequest {
  std::string model;
  std::variant<std::string, ChatPrompt> prompt;
  bool add_special_tokens = true;
  bool return_token_strs = false;
};

struct DetokenizeRequest {
  std::string model;
  std::vector<int32_t> tokens;
};

absl::StatusOr<TokenizeRequest> ParseTokenizeRequest(const Json& body);
absl::StatusOr<DetokenizeRequest> ParseDetokenizeRequest(const Json& body);

}  // namespace weft
