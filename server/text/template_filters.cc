// Filters whose result is a scalar: text, numbers, tojson, default.
#include "server/text/template_filters.h"

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_operators.h"
#include "server/text/template_print.h"
#include "server/text/template_strings.h"
#include "server/text/template_unicode.h"

namespace weft {
namespace {

using Value = TemplateValue;
using Call = TemplateCall;
using Kind = TemplateSequence::Kind;

template <TemplateText (*map)(const TemplateText&)>
absl::StatusOr<Value> MapText(const Call& call) {
  ASSIGN_OR_RETURN(TemplateText text, call.InputText());
  return Value::Text(map(text));
}

absl::StatusOr<Value> Trim(const Call& call) {
  ASSIGN_OR_RETURN(TemplateText text, call.InputText());
  if (!call.Has(0) || call.Arg(0).IsNone()) return Value::Text(StripText(text, nullptr, TemplateStripSide::kBoth));
  if (!call.Arg(0).IsText()) return TemplateFailed("trim needs a text of characters");
  return Value::Text(StripText(text, &call.Arg(0).AsText(), TemplateStripSide::kBoth));
}

// Jinja's own idea of a title, not str.title(): a word begins after one of "-([{<" or white space.
TemplateText JinjaTitle(const TemplateText& text) {
  bool at_start = true;
  return MapChars(text, [at_start](uint32_t c, bool) mutable {
    bool separator = IsSpaceChar(c) || c == '-' || c == '(' || c == '[' || c == '{' || c == '<';
    uint32_t mapped = at_start ? UpperChar(c) : LowerChar(c);
    at_start = separator;
    return separator ? c : mapped;
  });
}

absl::StatusOr<Value> Replace(const Call& call) {
  ASSIGN_OR_RETURN(TemplateText text, call.InputText());
  ASSIGN_OR_RETURN(TemplateText from, TemplateStr(call.Arg(0), call.budget()));
  ASSIGN_OR_RETURN(TemplateText to, TemplateStr(call.Arg(1), call.budget()));
  ASSIGN_OR_RETURN(int64_t count, call.Int(2, -1));
  ASSIGN_OR_RETURN(TemplateText result, ReplaceText(text, from, to, count, call.budget()));
  return Value::Text(std::move(result));
}

// A number of blanks, or the text itself.
absl::StatusOr<TemplateText> Indentation(const Call& call, size_t i, int64_t fallback) {
  if (call.Has(i) && call.Arg(i).IsText()) return call.Arg(i).AsText();
  ASSIGN_OR_RETURN(int64_t width, call.Int(i, fallback));
  size_t blanks = width > 0 ? static_cast<size_t>(width) : 0;
  RETURN_IF_ERROR(call.budget().SpendText(blanks));
  return TemplateText(std::string(blanks, ' '), /*trusted=*/false);
}

absl::StatusOr<Value> Indent(const Call& call) {
  ASSIGN_OR_RETURN(TemplateText text, call.InputText());
  ASSIGN_OR_RETURN(TemplateText blanks, Indentation(call, 0, 4));
  bool indent_first = call.Truth(1, false);
  bool indent_blank = call.Truth(2, false);
  text.Append("\n", /*trusted=*/false);  // as Jinja does, so that a trailing newline survives splitting
  ASSIGN_OR_RETURN(std::vector<Value> lines, SplitLines(text, /*keep_ends=*/false, call.budget()));
  std::vector<TemplateText> indented;
  for (size_t i = 0; i < lines.size(); ++i) {
    bool indents = i == 0 ? indent_first : indent_blank || !lines[i].AsText().empty();
    TemplateText line = indents ? blanks : TemplateText();
    RETURN_IF_ERROR(call.budget().SpendText(line.size() + lines[i].AsText().size()));
    line.Append(lines[i].AsText());
    indented.push_back(std::move(line));
  }
  ASSIGN_OR_RETURN(TemplateText result, JoinTexts(TemplateText("\n", false), indented, call.budget()));
  return Value::Text(std::move(result));
}

absl::StatusOr<Value> ToText(const Call& call) {
  ASSIGN_OR_RETURN(TemplateText text, call.InputText());
  return Value::Text(std::move(text));
}

absl::StatusOr<Value> Default(const Call& call) {
  bool replaces_false = call.Truth(1, false);
  bool keep = !call.input().IsUndefined() && (!replaces_false || TemplateTruth(call.input()));
  if (keep) return call.input();
  return call.Has(0) ? call.Arg(0) : Value::Literal("");
}

absl::StatusOr<Value> Length(const Call& call) {
  ASSIGN_OR_RETURN(int64_t length, TemplateLength(call.input()));
  return Value::Int(length);
}

absl::StatusOr<TemplateText> SeparatorAt(const TemplateSequence& pair, size_t i) {
  if (i >= pair.items.size() || !pair.items[i].IsText()) return TemplateFailed("tojson separators must be two texts");
  return pair.items[i].AsText();
}

absl::StatusOr<Value> ToJson(const Call& call) {
  TemplateJsonOptions options;
  options.ensure_ascii = call.Truth(0, false);
  if (call.Has(1) && !call.Arg(1).IsNone()) {
    ASSIGN_OR_RETURN(TemplateText indent, Indentation(call, 1, 0));
    options.indent = indent.bytes();
    options.item_separator.assign(1, ',');  // GCC 12 misreads = "," as an overlapping copy
  }
  if (call.Has(2) && !call.Arg(2).IsNone()) {
    const TemplateSequence* pair = call.Arg(2).AsSequence();
    if (!pair || pair->items.size() != 2) return TemplateFailed("tojson separators must be two texts");
    ASSIGN_OR_RETURN(TemplateText item_separator, SeparatorAt(*pair, 0));
    ASSIGN_OR_RETURN(TemplateText key_separator, SeparatorAt(*pair, 1));
    options.item_separator = item_separator.bytes();
    options.key_separator = key_separator.bytes();
  }
  options.sort_keys = call.Truth(3, false);
  ASSIGN_OR_RETURN(TemplateText text, TemplateJson(call.input(), options, call.budget()));
  return Value::Text(std::move(text));
}

absl::Status UndefinedNumber() { return TemplateFailed("a number from an undefined value"); }

// The whole number nearest to zero, if it fits.
std::optional<int64_t> Truncate(double number) {
  if (!(std::fabs(number) < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(number);
}

std::optional<double> ParseFloat(const TemplateText& text) {
  TemplateText stripped = StripText(text, nullptr, TemplateStripSide::kBoth);
  double number = 0;
  if (stripped.bytes().find_first_of("xX") != std::string::npos) return std::nullopt;
  if (!absl::SimpleAtod(stripped.bytes(), &number)) return std::nullopt;
  return number;
}

// The digits of `text` without sign and without the prefix that Python allows in this base.
std::optional<int64_t> ParseInt(const TemplateText& text, int base) {
  TemplateText stripped = StripText(text, nullptr, TemplateStripSide::kBoth);
  absl::string_view digits = stripped.bytes();
  bool negative = !digits.empty() && digits[0] == '-';
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) digits.remove_prefix(1);
  if (base != 10 && digits.size() > 2 && digits[0] == '0') {
    char mark = static_cast<char>(digits[1] | 0x20);
    bool prefixed = (base == 16 && mark == 'x') || (base == 8 && mark == 'o') || (base == 2 && mark == 'b');
    if (prefixed) digits.remove_prefix(2);
  }
  uint64_t number = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  if (number > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return negative ? -static_cast<int64_t>(number) : static_cast<int64_t>(number);
}

absl::StatusOr<Value> ToInt(const Call& call) {
  const Value& input = call.input();
  if (input.IsUndefined()) return UndefinedNumber();
  ASSIGN_OR_RETURN(int64_t base, call.Int(1, 10));
  if (base < 2 || base > 36) return TemplateFailed("int() base must be 2 to 36");
  std::optional<int64_t> result;
  if (input.IsIntegral()) result = input.ToInt();
  if (input.IsFloat()) result = Truncate(input.ToDouble());
  if (input.IsText()) {
    result = ParseInt(input.AsText(), static_cast<int>(base));
    std::optional<double> number = ParseFloat(input.AsText());
    if (!result && number) result = Truncate(*number);
  }
  if (result) return Value::Int(*result);
  return call.Has(0) ? call.Arg(0) : Value::Int(0);
}

absl::StatusOr<Value> ToFloat(const Call& call) {
  const Value& input = call.input();
  if (input.IsUndefined()) return UndefinedNumber();
  if (input.IsNumber()) return Value::Float(input.ToDouble());
  std::optional<double> number;
  if (input.IsText()) number = ParseFloat(input.AsText());
  if (number) return Value::Float(*number);
  return call.Has(0) ? call.Arg(0) : Value::Float(0);
}

absl::StatusOr<Value> Abs(const Call& call) {
  const Value& input = call.input();
  if (input.IsFloat()) return Value::Float(std::fabs(input.ToDouble()));
  if (!input.IsIntegral() || input.ToInt() == INT64_MIN) return TemplateFailed("abs of something that is no number");
  return Value::Int(std::abs(input.ToInt()));
}

absl::StatusOr<Value> Round(const Call& call) {
  if (!call.input().IsNumber()) return TemplateFailed("round of something that is no number");
  ASSIGN_OR_RETURN(int64_t precision, call.Int(0, 0));
  if (precision < -300 || precision > 300) return TemplateFailed("round to that many digits");
  std::string method = call.Has(1) && call.Arg(1).IsText() ? call.Arg(1).bytes() : "common";
  double number = call.input().ToDouble();
  double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value::Float(std::ceil(number * scale) / scale);
  if (method == "floor") return Value::Float(std::floor(number * scale) / scale);
  if (method != "common") return TemplateFailed("round needs common, ceil or floor");
  if (call.input().IsIntegral() && precision >= 0) return call.input();
  if (precision < 0) return Value::Float(std::nearbyint(number * scale) / scale);
  // printf rounds the exact binary value half to even, as Python does.
  return Value::Float(std::strtod(absl::StrFormat("%.*f", static_cast<int>(precision), number).c_str(), nullptr));
}

}  // namespace

const std::vector<TemplateFunction>& TemplateTextFilters() {
  static const auto* filters = new std::vector<TemplateFunction>{
      {"trim", {"chars"}, 0, Trim},
      {"upper", {}, 0, MapText<UpperText>},
      {"lower", {}, 0, MapText<LowerText>},
      {"capitalize", {}, 0, MapText<CapitalizeText>},
      {"title", {}, 0, MapText<JinjaTitle>},
      {"replace", {"old", "new", "count"}, 2, Replace},
      {"indent", {"width", "first", "blank"}, 0, Indent},
      {"string", {}, 0, ToText},
      {"safe", {}, 0, ToText},  // autoescape is off, so marking text as safe HTML changes nothing
      {"default", {"default_value", "boolean"}, 0, Default},
      {"d", {"default_value", "boolean"}, 0, Default},
      {"length", {}, 0, Length},
      {"count", {}, 0, Length},
      {"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0, ToJson},
      {"int", {"default", "base"}, 0, ToInt},
      {"float", {"default"}, 0, ToFloat},
      {"abs", {}, 0, Abs},
      {"round", {"precision", "method"}, 0, Round},
  };
  return *filters;
}

const TemplateFunction* FindTemplateFilter(absl::string_view name) {
  const TemplateFunction* found = FindTemplateFunction(TemplateTextFilters(), name);
  return found ? found : FindTemplateFunction(TemplateSequenceFilters(), name);
}

}  // namespace weft
