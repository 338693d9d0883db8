#include "server/openai_request.h"

#include <array>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "server/json_fields.h"
#include "server/limits.h"
#include "server/openai_chat.h"
#include "server/priority_name.h"

namespace weft {
namespace {

constexpr size_t kMaxUserBytes = 512;
constexpr size_t kMaxMetadataItems = 16;

// Fields of this or another server's API that change what is generated, or touch what a client has no business with.
constexpr std::array<absl::string_view, 17> kUnsupported = {
    "chat_template",   "guided_json",   "guided_regex", "guided_choice", "guided_grammar",   "structured_outputs",
    "regex",           "ebnf",          "stop_regex",   "prompt_embeds", "lora_path",        "bad_words",
    "prompt_logprobs", "function_call", "functions",    "audio",         "allowed_token_ids"};

// Switches that are supported in their off position.
constexpr std::array<absl::string_view, 2> kUnsupportedSwitches = {"use_beam_search", "continue_final_message"};

void RefuseUnsupported(JsonFields& fields) {
  for (const absl::string_view name : kUnsupported) {
    if (fields.Find(name) != nullptr) fields.Fail("unsupported_parameter", name, "is not supported");
  }
  for (const absl::string_view name : kUnsupportedSwitches) {
    bool on = false;
    fields.Read(name, on);
    if (on) fields.Fail("unsupported_parameter", name, "is not supported");
  }
}

void ReadResponseFormat(JsonFields& fields) {
  const Json* const format = fields.FindObject("response_format");
  if (format == nullptr) return;
  JsonFields in(*format, "response_format");
  std::string type;
  in.Read("type", type);
  if (type != "text") in.Fail("unsupported", "type", "must be \"text\"");
  fields.Fail(in.status());
}

void ReadStops(JsonFields& fields, std::vector<std::string>& out) {
  const Json* const stop = fields.Find("stop");
  if (stop == nullptr) return;
  if (stop->is_string()) {
    out.push_back(stop->get<std::string>());
    return;
  }
  if (!stop->is_array()) return fields.Fail("wrong_type", "stop", "must be a string or an array of strings");
  if (stop->size() > kMaxStops) return fields.Fail("out_of_range", "stop", "has more than 4 items");
  for (const Json& item : *stop) {
    if (!item.is_string()) return fields.Fail("wrong_type", "stop", "must be a string or an array of strings");
    out.push_back(item.get<std::string>());
  }
}

std::optional<int32_t> TokenId(const Json& item) {
  // Signed and unsigned are compared apart: 2^64 - 1 is not -1.
  if (!item.is_number_integer()) return std::nullopt;
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  if (item.is_number_unsigned() ? item.get<uint64_t>() > kMost
                                : item.get<int64_t>() < 0 || item.get<int64_t>() > kMost) {
    return std::nullopt;
  }
  return static_cast<int32_t>(item.get<int64_t>());
}

std::vector<int32_t> ReadTokenIds(JsonFields& fields, absl::string_view name, const Json& items) {
  std::vector<int32_t> ids;
  ids.reserve(items.size());
  for (const Json& item : items) {
    const std::optional<int32_t> id = TokenId(item);
    if (!id.has_value()) {
      fields.Fail("invalid_token_id", name, "must hold token ids: integers from 0 on");
      break;
    }
    ids.push_back(*id);
  }
  return ids;
}

void ReadLogitBias(JsonFields& fields, std::vector<std::pair<int64_t, double>>& out) {
  const Json* const biases = fields.FindObject("logit_bias");
  if (biases == nullptr) return;
  if (biases->size() > kMaxLogitBiases) return fields.Fail("out_of_range", "logit_bias", "has more than 300 items");
  for (const auto& [key, bias] : biases->items()) {
    int64_t token = 0;
    if (!absl::SimpleAtoi(key, &token) || token < 0) {
      return fields.Fail("invalid_token_id", "logit_bias", "must have token ids as keys");
    }
    if (!bias.is_number()) return fields.Fail("wrong_type", "logit_bias", "must have numbers as values");
    out.emplace_back(token, bias.get<double>());
  }
}

void ReadChoices(JsonFields& fields, int64_t& n) {
  fields.Read("n", n);
  int64_t best_of = n;
  fields.Read("best_of", best_of);
  if (best_of < n) fields.Fail("out_of_range", "best_of", "must not be less than n");
  if (best_of > n) fields.Fail("out_of_range", "best_of", "must not be more than n: choices are not ranked");
}

void ReadSampling(JsonFields& fields, GenerateRequest& out) {
  fields.Read("temperature", out.temperature);
  fields.Read("top_p", out.top_p);
  fields.Read("top_k", out.top_k);
  fields.Read("min_p", out.min_p);
  fields.Read("repetition_penalty", out.repetition_penalty);
  fields.Read("presence_penalty", out.presence_penalty);
  fields.Read("frequency_penalty", out.frequency_penalty);
  fields.Read("seed", out.seed);
  ReadLogitBias(fields, out.logit_bias);
}

void ReadLength(JsonFields& fields, GenerateRequest& out) {
  fields.Read("max_tokens", out.max_tokens);
  fields.Read("max_completion_tokens", out.max_tokens);  // the newer name wins
  fields.Read("min_tokens", out.min_tokens);
  fields.Read("ignore_eos", out.ignore_eos);
  ReadStops(fields, out.stop);
  if (const Json* const ids = fields.FindArray("stop_token_ids"); ids != nullptr) {
    if (ids->size() > kMaxStopTokenIds) return fields.Fail("out_of_range", "stop_token_ids", "has more than 64 items");
    out.stop_token_ids = ReadTokenIds(fields, "stop_token_ids", *ids);
  }
}

void ReadStreaming(JsonFields& fields, OpenAiRequest& out) {
  fields.Read("stream", out.stream);
  const Json* const options = fields.FindObject("stream_options");
  if (options == nullptr) return;
  if (!out.stream) return fields.Fail("conflict", "stream_options", "needs \"stream\": true");
  JsonFields in(*options, "stream_options");
  in.Read("include_usage", out.include_usage);
  fields.Fail(in.status());
}

// By name, or as a number of which the lower goes first, as vLLM has it.
void ReadPriority(JsonFields& fields, std::optional<Priority>& out) {
  const Json* const field = fields.Find("priority");
  if (field == nullptr) return;
  if (field->is_string()) {
    out = PriorityOfName(field->get_ref<const std::string&>());
  } else if (field->is_number_integer()) {
    int64_t number = 0;
    fields.Read("priority", number);
    if (number >= -1 && number <= 1) out = static_cast<Priority>(1 - number);
  } else {
    return fields.Fail("wrong_type", "priority", "must be a string or an integer");
  }
  if (!out.has_value()) {
    fields.Fail("out_of_range", "priority",
                R"(must be "high", "normal" or "low", or -1 (high), 0 (normal) or 1 (low))");
  }
}

// For nobody yet but later releases; bounded all the same, because they are kept.
void CheckLabels(JsonFields& fields) {
  std::string user;
  fields.Read("user", user);
  if (user.size() > kMaxUserBytes) fields.Fail("out_of_range", "user", "has more than 512 bytes");
  const Json* const metadata = fields.FindObject("metadata");
  if (metadata == nullptr) return;
  bool bounded = metadata->size() <= kMaxMetadataItems;
  for (const auto& [key, value] : metadata->items()) {
    bounded = bounded && key.size() <= kMaxUserBytes && value.is_string() &&
              value.get_ref<const std::string&>().size() <= kMaxUserBytes;
  }
  if (!bounded) fields.Fail("out_of_range", "metadata", "must be at most 16 strings of at most 512 bytes");
}

// What both endpoints have.
GenerateRequest ReadCommon(JsonFields& fields, OpenAiRequest& out) {
  GenerateRequest request;
  fields.Read("model", request.model);
  ReadPriority(fields, request.priority);
  ReadStreaming(fields, out);
  ReadChoices(fields, request.n);
  ReadLength(fields, request);
  ReadSampling(fields, request);
  fields.Read("skip_special_tokens", request.skip_special_tokens);
  fields.Read("cache_salt", request.cache_salt);
  fields.Read("include_stop_str_in_output", request.include_stop_str_in_output);
  ReadResponseFormat(fields);
  CheckLabels(fields);
  RefuseUnsupported(fields);
  return request;
}

using Prompt = decltype(GenerateRequest::prompt);

std::vector<Prompt> ReadPromptArray(JsonFields& fields, const Json& prompt) {
  std::vector<Prompt> out;
  const Json& first = prompt.front();
  if (!first.is_string() && !first.is_array()) {  // one prompt, as token ids
    out.emplace_back(ReadTokenIds(fields, "prompt", prompt));
    return out;
  }
  if (prompt.size() > kMaxPrompts) fields.Fail("too_many_prompts", "prompt", "has more than 32 items");
  for (size_t i = 0; i < prompt.size() && fields.ok(); ++i) {
    if (prompt[i].is_string() && first.is_string()) {
      out.emplace_back(prompt[i].get<std::string>());
    } else if (prompt[i].is_array() && first.is_array()) {
      out.emplace_back(ReadTokenIds(fields, absl::StrCat("prompt[", i, "]"), prompt[i]));
    } else {
      fields.Fail("wrong_type", "prompt", "must hold prompts of one kind");
    }
  }
  return out;
}

std::vector<Prompt> ReadPrompts(JsonFields& fields) {
  const Json* const prompt = fields.Find("prompt");
  if (prompt == nullptr) {
    fields.Fail("missing_field", "prompt", "is missing");
    return {};
  }
  if (prompt->is_string()) return {Prompt(prompt->get<std::string>())};
  if (!prompt->is_array()) {
    fields.Fail("wrong_type", "prompt", "must be a string, an array of strings, token ids, or an array of token ids");
    return {};
  }
  if (prompt->empty()) {
    fields.Fail("empty", "prompt", "must not be empty");
    return {};
  }
  return ReadPromptArray(fields, *prompt);
}

void ReadChatLogprobs(JsonFields& fields, std::optional<int64_t>& out) {
  bool logprobs = false;
  std::optional<int64_t> top;
  fields.Read("logprobs", logprobs);
  fields.Read("top_logprobs", top);
  if (top.has_value() && !logprobs) fields.Fail("unsupported", "top_logprobs", "needs \"logprobs\": true");
  if (top.has_value() && (*top < 0 || *top > 20)) fields.Fail("out_of_range", "top_logprobs", "must be 0 to 20");
  if (logprobs) out = top.value_or(0);
}

}  // namespace

absl::StatusOr<OpenAiRequest> ParseCompletionRequest(const Json& body) {
  JsonFields fields(body);
  OpenAiRequest out;
  GenerateRequest request = ReadCommon(fields, out);
  fields.Read("logprobs", request.num_logprobs);
  fields.Read("echo", request.echo);
  fields.Read("add_special_tokens", request.add_special_tokens);
  std::string suffix;
  fields.Read("suffix", suffix);
  if (!suffix.empty()) fields.Fail("unsupported_parameter", "suffix", "is not supported");
  if (fields.Find("messages") != nullptr) fields.Fail("conflict", "messages", "belongs to /v1/chat/completions");
  std::vector<Prompt> prompts = ReadPrompts(fields);
  if (!fields.ok()) return fields.status();
  for (Prompt& prompt : prompts) {
    out.prompts.push_back(request);
    out.prompts.back().prompt = std::move(prompt);
  }
  return out;
}

absl::StatusOr<OpenAiRequest> ParseChatRequest(const Json& body) {
  JsonFields fields(body);
  OpenAiRequest out;
  GenerateRequest request = ReadCommon(fields, out);
  ReadChatLogprobs(fields, request.num_logprobs);
  if (fields.Find("prompt") != nullptr) fields.Fail("conflict", "prompt", "belongs to /v1/completions");
  if (fields.ok()) request.prompt = ReadChatPrompt(fields);
  if (!fields.ok()) return fields.status();
  out.prompts.push_back(std::move(request));
  return out;
}

absl::StatusOr<TokenizeRequest> ParseTokenizeRequest(const Json& body) {
  JsonFields fields(body);
  TokenizeRequest out;
  const bool has_prompt = fields.Find("prompt") != nullptr;
  const bool has_messages = fields.Find("messages") != nullptr;
  fields.Read("model", out.model);
  fields.Read("add_special_tokens", out.add_special_tokens);
  fields.Read("return_token_strs", out.return_token_strs);
  if (has_prompt && has_messages) fields.Fail("conflict", "prompt", "and messages exclude each other");
  if (!has_prompt && !has_messages) fields.Fail("missing_field", "prompt", "is missing");
  if (has_prompt) {
    std::string text;
    fields.Read("prompt", text);
    out.prompt = std::move(text);
  } else if (fields.ok()) {
    out.prompt = ReadChatPrompt(fields);
  }
  if (!fields.ok()) return fields.status();
  return out;
}

absl::StatusOr<DetokenizeRequest> ParseDetokenizeRequest(const Json& body) {
  JsonFields fields(body);
  DetokenizeRequest out;
  fields.Read("model", out.model);
  const Json* const tokens = fields.FindArray("tokens");
  if (tokens == nullptr) {
    fields.Fail("missing_field", "tokens", "is missing");
  } else {
    out.tokens = ReadTokenIds(fields, "tokens", *tokens);
  }
  if (!fields.ok()) return fields.status();
  return out;
}

}  // namespace weft
