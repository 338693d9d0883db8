#include "server/openai_chat.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace weft {
namespace {

constexpr std::array<absl::string_view, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};

// Template variables that a client may set. Others could replace what the server itself says to the template.
constexpr std::array<absl::string_view, 4> kTemplateVariables = {"enable_thinking", "thinking", "reasoning_effort",
                                                                 "date_string"};

template <size_t kSize>
bool Contains(const std::array<absl::string_view, kSize>& names, absl::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string JoinTextParts(const Json& parts, JsonFields& message) {
  std::string text;
  for (size_t i = 0; i < parts.size() && message.ok(); ++i) {
    const std::string name = absl::StrCat("content[", i, "]");
    if (!parts[i].is_object()) {
      message.Fail("unsupported_content", name, "must be an object");
      break;
    }
    JsonFields part(parts[i], message.Param(name));
    std::string type, piece;
    part.Read("type", type);
    if (type != "text") part.Fail("unsupported_content", "type", "must be \"text\"; other parts are not supported");
    if (part.Find("text") == nullptr) part.Fail("unsupported_content", "text", "is missing");
    part.Read("text", piece);
    message.Fail(part.status());
    absl::StrAppend(&text, i == 0 ? "" : "\n", piece);
  }
  return text;
}

Json ReadContent(JsonFields& message, bool may_lack_content) {
  const Json* const content = message.Find("content");
  if (content == nullptr) {
    if (!may_lack_content) message.Fail("unsupported_content", "content", "must be a string or an array of text parts");
    return nullptr;
  }
  if (content->is_string()) return *content;
  if (content->is_array()) return JoinTextParts(*content, message);
  message.Fail("unsupported_content", "content", "must be a string or an array of text parts");
  return nullptr;
}

// Clients send arguments as they got them, as JSON in a string; templates print the object.
Json ReadToolCalls(JsonFields& message, const Json& calls) {
  Json out = calls;
  for (size_t i = 0; i < out.size(); ++i) {
    const auto function = out[i].is_object() ? out[i].find("function") : out[i].end();
    if (!out[i].is_object() || function == out[i].end() || !function->is_object()) {
      message.Fail("wrong_type", absl::StrCat("tool_calls[", i, "]"), "must be an object with a function");
      return out;
    }
    const auto arguments = function->find("arguments");
    if (arguments == function->end() || !arguments->is_string()) continue;
    absl::StatusOr<Json> parsed = ParseJsonObject(arguments->get_ref<const std::string&>());
    if (parsed.ok()) *arguments = *std::move(parsed);
  }
  return out;
}

Json ReadMessage(JsonFields& message) {
  std::string role;
  message.Read("role", role);
  if (!Contains(kRoles, role)) {
    message.Fail("unsupported_content", "role", "must be system, developer, user, assistant or tool");
  }
  const Json* const calls = message.FindArray("tool_calls");
  Json out = Json::object();
  out["role"] = role == "developer" ? "system" : role;
  out["content"] = ReadContent(message, role == "assistant" && calls != nullptr && !calls->empty());
  for (const absl::string_view name : {"name", "tool_call_id", "reasoning_content"}) {
    std::optional<std::string> value;
    message.Read(name, value);
    if (value.has_value()) out[std::string(name)] = *std::move(value);
  }
  if (calls != nullptr && !calls->empty()) out["tool_calls"] = ReadToolCalls(message, *calls);
  return out;
}

Json ReadMessages(JsonFields& fields) {
  Json out = Json::array();
  const Json* const messages = fields.FindArray("messages");
  if (messages == nullptr) {
    fields.Fail("missing_field", "messages", "is missing");
  } else if (messages->empty()) {
    fields.Fail("empty", "messages", "must not be empty");
  } else if (messages->size() > kMaxMessages) {
    fields.Fail("too_many_items", "messages", "has more than 2048 items");
  }
  if (!fields.ok()) return out;
  for (size_t i = 0; i < messages->size() && fields.ok(); ++i) {
    const std::string name = absl::StrCat("messages[", i, "]");
    if (!(*messages)[i].is_object()) {
      fields.Fail("wrong_type", name, "must be an object");
      break;
    }
    JsonFields message((*messages)[i], name);
    out.push_back(ReadMessage(message));
    fields.Fail(message.status());
  }
  return out;
}

bool IsFunctionName(absl::string_view name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
  });
}

void CheckTool(const Json& tool, absl::flat_hash_set<std::string>& names, const std::string& path, JsonFields& fields) {
  if (!tool.is_object()) return fields.Fail("invalid_tool", path, "must be an object");
  JsonFields in(tool, path);
  std::string type, name;
  in.Read("type", type);
  if (type != "function") in.Fail("invalid_tool", "type", "must be \"function\"");
  const Json* const function = in.FindObject("function");
  if (function == nullptr) return fields.Fail("invalid_tool", absl::StrCat(path, ".function"), "must be an object");
  JsonFields in_function(*function, in.Param("function"));
  in_function.Read("name", name);
  if (!IsFunctionName(name)) {
    in_function.Fail("invalid_tool", "name", "must be 1 to 64 of letters, digits, '_', '-' and '.'");
  }
  if (!names.insert(name).second) in_function.Fail("invalid_tool", "name", "is used by two tools");
  in_function.FindObject("parameters");
  fields.Fail(in.status());
  fields.Fail(in_function.status());
}

// Null where there are none to show.
const Json* ReadTools(JsonFields& fields) {
  const Json* const tools = fields.FindArray("tools");
  if (tools != nullptr && tools->size() > kMaxTools) fields.Fail("invalid_tool", "tools", "has more than 128 items");
  absl::flat_hash_set<std::string> names;
  for (size_t i = 0; tools != nullptr && i < tools->size() && fields.ok(); ++i) {
    CheckTool((*tools)[i], names, absl::StrCat("tools[", i, "]"), fields);
  }
  const Json* const choice = fields.Find("tool_choice");
  if (choice == nullptr || *choice == "auto") return tools;
  if (*choice != "none") fields.Fail("unsupported", "tool_choice", "must be \"auto\" or \"none\"");
  return nullptr;
}

void ReadTemplateVariables(JsonFields& fields, Json& inputs) {
  const Json* const variables = fields.FindObject("chat_template_kwargs");
  if (variables == nullptr) return;
  for (const auto& [name, value] : variables->items()) {
    if (!Contains(kTemplateVariables, name) || value.is_structured()) {
      return fields.Fail("unsupported_parameter", "chat_template_kwargs", "has a variable that clients may not set");
    }
    inputs[name] = value;
  }
}

}  // namespace

ChatPrompt ReadChatPrompt(JsonFields& fields) {
  ChatPrompt prompt;
  bool add_generation_prompt = true;
  fields.Read("add_generation_prompt", add_generation_prompt);
  prompt.inputs = Json::object();
  ReadTemplateVariables(fields, prompt.inputs);
  prompt.inputs["messages"] = ReadMessages(fields);
  if (const Json* const tools = ReadTools(fields); tools != nullptr && !tools->empty()) prompt.inputs["tools"] = *tools;
  prompt.inputs["add_generation_prompt"] = add_generation_prompt;
  return prompt;
}

}  // namespace weft
