#include "server/openai_response.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/api_error.h"
#include "server/random_id.h"
#include "server/text/unicode.h"

namespace weft {
namespace {

constexpr double kLeastLogprob = -9999.0;  // stands for minus infinity, which JSON can't say

double FiniteLogprob(float logprob) { return logprob > kLeastLogprob ? static_cast<double>(logprob) : kLeastLogprob; }

// A token that is part of a character has no text of its own; like OpenAI, its bytes are spelled out then.
std::string TokenString(const std::string& bytes) {
  if (IsValidUtf8(bytes)) return bytes;
  std::string out = "bytes:";
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    absl::StrAppend(&out, "\\x", absl::Hex(byte, absl::kZeroPad2));
  }
  return out;
}

Json ByteArray(const std::string& bytes) {
  Json out = Json::array();
  for (const char c : bytes) out.push_back(static_cast<unsigned char>(c));
  return out;
}

Json ChatToken(const TokenText& token) {
  return {{"token", TokenString(token.bytes)},
          {"logprob", FiniteLogprob(token.logprob)},
          {"bytes", ByteArray(token.bytes)}};
}

Json ChatLogprobs(const std::vector<GeneratedToken>& tokens) {
  Json content = Json::array();
  for (const GeneratedToken& token : tokens) {
    Json entry = ChatToken(token.token);
    Json& top = entry["top_logprobs"] = Json::array();
    for (const TokenText& other : token.top_logprobs) top.push_back(ChatToken(other));
    content.push_back(std::move(entry));
  }
  Json out = Json::object();
  out["content"] = std::move(content);
  return out;
}

Json CompletionLogprobs(const std::vector<GeneratedToken>& generated, int64_t& num_chars) {
  Json tokens = Json::array(), logprobs = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const GeneratedToken& one : generated) {
    tokens.push_back(TokenString(one.token.bytes));
    offsets.push_back(num_chars);
    num_chars += one.num_chars;
    if (!one.has_logprob) {
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    logprobs.push_back(FiniteLogprob(one.token.logprob));
    Json top = Json::object();
    for (const TokenText& other : one.top_logprobs) top[TokenString(other.bytes)] = FiniteLogprob(other.logprob);
    tops.push_back(std::move(top));
  }
  Json out = Json::object();
  out["tokens"] = std::move(tokens);
  out["token_logprobs"] = std::move(logprobs);
  out["top_logprobs"] = std::move(tops);
  out["text_offset"] = std::move(offsets);
  return out;
}

Json StopReason(const Finish& finish) {
  if (const auto* text = std::get_if<std::string>(&finish.stop_reason)) return *text;
  if (const auto* token = std::get_if<int32_t>(&finish.stop_reason)) return *token;
  return nullptr;
}

absl::string_view FinishWord(const Finish& finish) { return finish.kind == StopKind::kLength ? "length" : "stop"; }

void SetFinish(const Finish& finish, Json& choice) {
  choice["finish_reason"] = std::string(FinishWord(finish));
  choice["stop_reason"] = StopReason(finish);
}

Json UsageJson(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", 0}}}};
}

}  // namespace

OpenAiAnswer::OpenAiAnswer(OpenAiAnswerOptions options, int64_t num_choices)
    : options_(std::move(options)),
      id_(RandomId(options_.api == OpenAiApi::kChat ? "chatcmpl-" : "cmpl-")),
      num_chars_(num_choices) {}

Json OpenAiAnswer::Head(bool chunk) const {
  const bool chat = options_.api == OpenAiApi::kChat;
  return {{"id", id_},
          {"object", !chat   ? "text_completion"
                     : chunk ? "chat.completion.chunk"
                             : "chat.completion"},
          {"created", absl::ToUnixSeconds(options_.created)},
          {"model", options_.model},
          {"system_fingerprint", options_.fingerprint}};
}

Json OpenAiAnswer::ChunkOf(Json choice) const {
  Json chunk = Head(true);
  chunk["choices"].push_back(std::move(choice));
  if (options_.include_usage) chunk["usage"] = nullptr;
  return chunk;
}

Json OpenAiAnswer::ChoiceLogprobs(int64_t index, const std::vector<GeneratedToken>& tokens) {
  if (!options_.logprobs) return nullptr;
  return options_.api == OpenAiApi::kChat ? ChatLogprobs(tokens) : CompletionLogprobs(tokens, num_chars_[index]);
}

std::string OpenAiAnswer::Whole(const std::vector<WholeChoice>& choices, const Usage& usage) {
  Json out = Head(false);
  Json& list = out["choices"] = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    Json choice = Json::object();
    choice["index"] = i;
    if (options_.api == OpenAiApi::kChat) {
      choice["message"] = {{"role", "assistant"}, {"content", choices[i].text}};
    } else {
      choice["text"] = choices[i].text;
    }
    choice["logprobs"] = ChoiceLogprobs(static_cast<int64_t>(i), choices[i].logprobs);
    SetFinish(choices[i].finish.value_or(Finish{}), choice);
    list.push_back(std::move(choice));
  }
  out["usage"] = UsageJson(usage);
  return DumpJson(out);
}

std::string OpenAiAnswer::Role(int64_t index) const {
  return DumpJson(ChunkOf({{"index", index},
                           {"delta", {{"role", "assistant"}, {"content", ""}}},
                           {"logprobs", nullptr},
                           {"finish_reason", nullptr}}));
}

std::string OpenAiAnswer::Content(int64_t index, const std::string& text, const std::vector<GeneratedToken>& tokens) {
  Json choice = {{"index", index}};
  if (options_.api == OpenAiApi::kChat) {
    choice["delta"]["content"] = text;
  } else {
    choice["text"] = text;
  }
  choice["logprobs"] = tokens.empty() ? Json(nullptr) : ChoiceLogprobs(index, tokens);
  choice["finish_reason"] = nullptr;
  return DumpJson(ChunkOf(std::move(choice)));
}

std::string OpenAiAnswer::FinishChunk(int64_t index, const Finish& finish) const {
  Json choice = {{"index", index}};
  if (options_.api == OpenAiApi::kChat) {
    choice["delta"] = Json::object();
  } else {
    choice["text"] = "";
  }
  choice["logprobs"] = nullptr;
  SetFinish(finish, choice);
  return DumpJson(ChunkOf(std::move(choice)));
}

std::string OpenAiAnswer::UsageChunk(const Usage& usage) const {
  Json chunk = Head(true);
  chunk["choices"] = Json::array();
  chunk["usage"] = UsageJson(usage);
  return DumpJson(chunk);
}

Json ErrorJson(const absl::Status& error) {
  const std::string code = ErrorCode(error);
  const std::string param = ErrorParam(error);
  Json inner = Json::object();
  inner["message"] =
      code == "internal_error" ? "Something went wrong inside the server." : std::string(error.message());
  inner["type"] = std::string(ErrorType(HttpStatus(error)));
  inner["param"] = param.empty() ? Json(nullptr) : Json(param);
  inner["code"] = code;
  Json out = Json::object();
  out["error"] = std::move(inner);
  return out;
}

}  // namespace weft
