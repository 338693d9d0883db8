#include "server/grpc_convert.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api_error.h"
#include "server/json_fields.h"
#include "server/json_parse.h"
#include "server/openai_chat.h"

namespace weft {
namespace {

// The document in a *_json field.
absl::StatusOr<Json> ParseField(const std::string& text, absl::string_view param) {
  absl::StatusOr<Json> json = ParseJson(text);
  if (json.ok()) return json;
  return BadRequest(ErrorCode(json.status()), param, "the field does not hold a JSON document as it should");
}

absl::StatusOr<Json> MessageJson(const v1::ChatMessage& message, absl::string_view path) {
  Json json = Json::object();
  json["role"] = message.role();
  json["content"] = message.content();
  if (!message.name().empty()) json["name"] = message.name();
  if (!message.reasoning_content().empty()) json["reasoning_content"] = message.reasoning_content();
  if (!message.tool_call_id().empty()) json["tool_call_id"] = message.tool_call_id();
  if (!message.tool_calls_json().empty()) {
    ASSIGN_OR_RETURN(json["tool_calls"], ParseField(message.tool_calls_json(), absl::StrCat(path, ".tool_calls_json")));
    if (message.content().empty()) json.erase("content");
  }
  return json;
}

void CopyNumbers(const v1::GenerateRequest& message, GenerateRequest& request) {
  if (message.has_n()) request.n = message.n();
  if (message.has_max_tokens()) request.max_tokens = message.max_tokens();
  if (message.has_min_tokens()) request.min_tokens = message.min_tokens();
  if (message.has_temperature()) request.temperature = message.temperature();
  if (message.has_top_p()) request.top_p = message.top_p();
  if (message.has_top_k()) request.top_k = message.top_k();
  if (message.has_min_p()) request.min_p = message.min_p();
  if (message.has_repetition_penalty()) request.repetition_penalty = message.repetition_penalty();
  if (message.has_presence_penalty()) request.presence_penalty = message.presence_penalty();
  if (message.has_frequency_penalty()) request.frequency_penalty = message.frequency_penalty();
  if (message.has_seed()) request.seed = message.seed();
  if (message.has_logprobs()) request.num_logprobs = message.logprobs();
}

// A number that no Priority has is out of range, whatever a later release may call it.
absl::Status CopyPriority(const v1::GenerateRequest& message, std::optional<Priority>& out) {
  switch (message.priority()) {
    case v1::PRIORITY_UNSPECIFIED:
      return absl::OkStatus();
    case v1::PRIORITY_LOW:
      out = Priority::kLow;
      return absl::OkStatus();
    case v1::PRIORITY_NORMAL:
      out = Priority::kNormal;
      return absl::OkStatus();
    case v1::PRIORITY_HIGH:
      out = Priority::kHigh;
      return absl::OkStatus();
    default:
      return BadRequest("out_of_range", "priority", "must be a priority that this server knows");
  }
}

void CopyRules(const v1::GenerateRequest& message, GenerateRequest& request) {
  request.stop.assign(message.stop().begin(), message.stop().end());
  request.stop_token_ids.assign(message.stop_token_ids().begin(), message.stop_token_ids().end());
  request.include_stop_str_in_output = message.include_stop_str_in_output();
  request.ignore_eos = message.ignore_eos();
  request.echo = message.echo();
  request.cache_salt = message.cache_salt();
  if (message.has_skip_special_tokens()) request.skip_special_tokens = message.skip_special_tokens();
  if (message.has_add_special_tokens()) request.add_special_tokens = message.add_special_tokens();
  for (const v1::LogitBias& bias : message.logit_bias()) request.logit_bias.emplace_back(bias.token_id(), bias.bias());
}

void Fill(const TokenText& token, v1::TokenLogprob& message) {
  message.set_token_id(token.id);
  message.set_text(token.bytes);
  message.set_logprob(token.logprob);
}

v1::FinishReason ReasonOf(StopKind kind) {
  switch (kind) {
    case StopKind::kStop:
      return v1::FINISH_REASON_STOP;
    case StopKind::kLength:
      return v1::FINISH_REASON_LENGTH;
    case StopKind::kCancelled:
    case StopKind::kError:  // never sent: the call ends in a status instead
      break;
  }
  return v1::FINISH_REASON_CANCELLED;
}

void Fill(const Finish& finish, v1::Finish& message) {
  message.set_reason(ReasonOf(finish.kind));
  if (const auto* text = std::get_if<std::string>(&finish.stop_reason)) message.set_stop_text(*text);
  if (const auto* id = std::get_if<int32_t>(&finish.stop_reason)) message.set_stop_token_id(*id);
}

}  // namespace

// By way of the OpenAI API's own reader, so that a conversation means the same over both protocols.
absl::StatusOr<ChatPrompt> FromProto(const v1::ChatPrompt& message) {
  Json json = Json::object();
  Json& messages = json["messages"] = Json::array();
  for (int i = 0; i < message.messages_size(); ++i) {
    ASSIGN_OR_RETURN(Json one, MessageJson(message.messages(i), absl::StrCat("messages[", i, "]")));
    messages.push_back(std::move(one));
  }
  if (!message.tools_json().empty()) {
    ASSIGN_OR_RETURN(json["tools"], ParseField(message.tools_json(), "tools_json"));
  }
  if (!message.tool_choice().empty()) json["tool_choice"] = message.tool_choice();
  if (!message.chat_template_kwargs_json().empty()) {
    ASSIGN_OR_RETURN(json["chat_template_kwargs"],
                     ParseField(message.chat_template_kwargs_json(), "chat_template_kwargs_json"));
  }
  if (message.has_add_generation_prompt()) json["add_generation_prompt"] = message.add_generation_prompt();
  JsonFields fields(json);
  ChatPrompt prompt = ReadChatPrompt(fields);
  RETURN_IF_ERROR(fields.status());
  return prompt;
}

absl::StatusOr<GenerateRequest> FromProto(const v1::GenerateRequest& message) {
  GenerateRequest request;
  request.model = message.model();
  switch (message.prompt_case()) {
    case v1::GenerateRequest::kText:
      request.prompt = message.text();
      break;
    case v1::GenerateRequest::kTokenIds:
      request.prompt = std::vector<int32_t>(message.token_ids().ids().begin(), message.token_ids().ids().end());
      break;
    case v1::GenerateRequest::kChat: {
      ASSIGN_OR_RETURN(request.prompt, FromProto(message.chat()));
      break;
    }
    case v1::GenerateRequest::PROMPT_NOT_SET:
      return BadRequest("missing_field", "prompt", "one of text, token_ids and chat is required");
  }
  RETURN_IF_ERROR(CopyPriority(message, request.priority));
  CopyNumbers(message, request);
  CopyRules(message, request);
  return request;
}

v1::GenerateResponse ToProto(const Delta& delta) {
  v1::GenerateResponse message;
  message.set_index(delta.index);
  message.set_text(delta.text);
  message.mutable_token_ids()->Add(delta.token_ids.begin(), delta.token_ids.end());
  for (const GeneratedToken& token : delta.logprobs) {
    v1::GeneratedToken& out = *message.add_logprobs();
    Fill(token.token, *out.mutable_drawn());
    if (!token.has_logprob) out.mutable_drawn()->clear_logprob();
    for (const TokenText& top : token.top_logprobs) Fill(top, *out.add_top());
  }
  if (delta.finish.has_value()) Fill(*delta.finish, *message.mutable_finish());
  return message;
}

v1::Usage ToProto(const Usage& usage) {
  v1::Usage message;
  message.set_prompt_tokens(usage.prompt_tokens);
  message.set_completion_tokens(usage.completion_tokens);
  message.set_cached_tokens(usage.cached_tokens);
  return message;
}

v1::GetModelResponse ToProto(const ModelInfo& model) {
  v1::GetModelResponse message;
  for (const std::string& name : model.names) message.add_names(name);
  message.set_root(model.root);
  message.set_created(absl::ToUnixSeconds(model.created));
  message.set_max_model_len(model.max_model_len);
  message.set_vocab_size(model.vocab_size);
  message.set_fingerprint(model.fingerprint);
  return message;
}

}  // namespace weft
