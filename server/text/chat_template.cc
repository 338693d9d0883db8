#include "server/text/chat_template.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_interpreter.h"
#include "server/text/template_lexer.h"
#include "server/text/template_parser.h"
#include "server/text/template_value.h"

namespace weft {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool", "function", "ipython"};

bool IsKnownRole(absl::string_view text) {
  return std::find(std::begin(kRoles), std::end(kRoles), text) != std::end(kRoles);
}

// Copies request data into values and counts its text.
class InputReader {
 public:
  explicit InputReader(int max_depth) : max_depth_(max_depth) {}

  absl::StatusOr<TemplateValue> Read(const Json& json, int depth);
  absl::StatusOr<TemplateValue> ReadMessages(const Json& messages);

  size_t num_bytes() const { return num_bytes_; }

 private:
  absl::StatusOr<TemplateValue> ReadArray(const Json& json, int depth);
  absl::StatusOr<TemplateValue> ReadObject(const Json& json, int depth);
  TemplateValue ReadText(const std::string& text);

  int max_depth_;
  size_t num_bytes_ = 0;
};

absl::StatusOr<TemplateValue> InputReader::Read(const Json& json, int depth) {
  if (depth > max_depth_) return TemplateOverBudget("inputs nested too deep");
  switch (json.type()) {
    case Json::value_t::boolean:
      return TemplateValue::Bool(json.get<bool>());
    case Json::value_t::number_integer:
      return TemplateValue::Int(json.get<int64_t>());
    case Json::value_t::number_float:
      return TemplateValue::Float(json.get<double>());
    case Json::value_t::string:
      return ReadText(json.get_ref<const std::string&>());
    case Json::value_t::array:
      return ReadArray(json, depth);
    case Json::value_t::object:
      return ReadObject(json, depth);
    case Json::value_t::number_unsigned:
      break;
    default:
      return TemplateValue::None();
  }
  uint64_t number = json.get<uint64_t>();
  bool fits = number <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  return fits ? TemplateValue::Int(static_cast<int64_t>(number)) : TemplateValue::Float(static_cast<double>(number));
}

TemplateValue InputReader::ReadText(const std::string& text) {
  num_bytes_ += text.size();
  return TemplateValue::Untrusted(text);
}

absl::StatusOr<TemplateValue> InputReader::ReadArray(const Json& json, int depth) {
  std::vector<TemplateValue> items;
  for (const Json& element : json) {
    ASSIGN_OR_RETURN(TemplateValue item, Read(element, depth + 1));
    items.push_back(std::move(item));
  }
  return TemplateValue::List(std::move(items));
}

absl::StatusOr<TemplateValue> InputReader::ReadObject(const Json& json, int depth) {
  TemplateDict dict;
  for (const auto& [name, element] : json.items()) {
    ASSIGN_OR_RETURN(TemplateValue value, Read(element, depth + 1));
    dict.Set(ReadText(name), std::move(value));
  }
  return TemplateValue::Dict(std::move(dict));
}

// As Read(), but a known role is trusted: the request chooses it from a fixed list, it doesn't write it.
absl::StatusOr<TemplateValue> InputReader::ReadMessages(const Json& messages) {
  ASSIGN_OR_RETURN(TemplateValue value, Read(messages, 1));
  if (!messages.is_array()) return value;
  std::vector<TemplateValue> items = value.AsSequence()->items;
  for (TemplateValue& item : items) {
    const TemplateValue* role = item.AsDict() ? item.AsDict()->Find("role") : nullptr;
    if (!role || !role->IsText() || !IsKnownRole(role->bytes())) continue;
    TemplateDict message = *item.AsDict();
    message.Set(TemplateValue::Literal("role"), TemplateValue::Literal(role->bytes()));
    item = TemplateValue::Dict(std::move(message));
  }
  return TemplateValue::List(std::move(items));
}

// The variables that transformers always passes, unless the inputs do.
void SetDefaults(TemplateScope& scope) {
  if (!scope.Find("tools")) scope.Set("tools", TemplateValue::None());
  if (!scope.Find("documents")) scope.Set("documents", TemplateValue::None());
  if (!scope.Find("add_generation_prompt")) scope.Set("add_generation_prompt", TemplateValue::Bool(false));
}

}  // namespace

ChatTemplate::ChatTemplate(TemplateBody body, std::string bos_token, std::string eos_token,
                           const TemplateLimits& limits)
    : body_(std::make_shared<const TemplateBody>(std::move(body))),
      bos_token_(std::move(bos_token)),
      eos_token_(std::move(eos_token)),
      limits_(limits) {}

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(absl::string_view source, std::string bos_token, std::string eos_token,
                                                 const TemplateLimits& limits) {
  if (source.size() > limits.max_source_bytes) {
    return TemplateInvalid(1, absl::StrCat("longer than ", limits.max_source_bytes, " bytes"));
  }
  ASSIGN_OR_RETURN(std::vector<TemplateToken> tokens, LexTemplate(source));
  ASSIGN_OR_RETURN(TemplateBody body, TemplateParser(std::move(tokens), limits.max_depth).Parse());
  return ChatTemplate(std::move(body), std::move(bos_token), std::move(eos_token), limits);
}

absl::StatusOr<std::vector<TextSegment>> ChatTemplate::Render(const nlohmann::ordered_json& inputs,
                                                              absl::Time now) const {
  if (!inputs.is_object()) return TemplateFailed("the inputs are no object");
  InputReader reader(limits_.max_depth);
  TemplateScope scope;
  for (const auto& item : inputs.items()) {
    absl::StatusOr<TemplateValue> value =
        item.key() == "messages" ? reader.ReadMessages(item.value()) : reader.Read(item.value(), 1);
    RETURN_IF_ERROR(value.status());
    scope.Set(item.key(), *std::move(value));
  }
  SetDefaults(scope);
  scope.Set("bos_token", bos_token_.empty() ? TemplateValue() : TemplateValue::Literal(bos_token_));
  scope.Set("eos_token", eos_token_.empty() ? TemplateValue() : TemplateValue::Literal(eos_token_));

  TemplateBudget budget(limits_, reader.num_bytes());
  TemplateInterpreter interpreter(budget, now, std::move(scope));
  absl::StatusOr<TemplateText> text = interpreter.Run(*body_);
  if (text.ok()) return text->Segments();
  constexpr absl::string_view kFailed = "template_failed: ";
  absl::string_view message = text.status().message();
  if (!absl::StartsWith(message, kFailed)) return text.status();
  return absl::InvalidArgumentError(
      absl::StrCat(kFailed, "line ", interpreter.line(), ": ", message.substr(kFailed.size())));
}

}  // namespace weft
