#include "server/text/template_methods.h"

#include <algorithm>

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
using Side = TemplateStripSide;

const TemplateText& Self(const Call& call) { return call.input().AsText(); }

// Argument `i` as a text; an error when it is something else.
absl::StatusOr<TemplateText> TextArg(const Call& call, size_t i) {
  if (!call.Arg(i).IsText()) return TemplateFailed("an argument that must be a text");
  return call.Arg(i).AsText();
}

template <Side side>
absl::StatusOr<Value> Strip(const Call& call) {
  if (!call.Has(0) || call.Arg(0).IsNone()) return Value::Text(StripText(Self(call), nullptr, side));
  ASSIGN_OR_RETURN(TemplateText chars, TextArg(call, 0));
  RETURN_IF_ERROR(call.budget().SpendText(chars.size()));
  return Value::Text(StripText(Self(call), &chars, side));
}

template <bool from_right>
absl::StatusOr<Value> Split(const Call& call) {
  TemplateSplit split;
  split.from_right = from_right;
  ASSIGN_OR_RETURN(split.max_splits, call.Int(1, -1));
  TemplateText separator;
  if (call.Has(0) && !call.Arg(0).IsNone()) {
    ASSIGN_OR_RETURN(separator, TextArg(call, 0));
    split.separator = &separator;
  }
  ASSIGN_OR_RETURN(std::vector<Value> pieces, SplitText(Self(call), split, call.budget()));
  return Value::List(std::move(pieces));
}

template <bool from_right>
absl::StatusOr<Value> Partition(const Call& call) {
  ASSIGN_OR_RETURN(TemplateText separator, TextArg(call, 0));
  TemplateSplit split{&separator, 1, from_right};
  ASSIGN_OR_RETURN(std::vector<Value> pieces, SplitText(Self(call), split, call.budget()));
  Value empty = Value::Text(TemplateText());
  if (pieces.size() == 2) return Value::Tuple({pieces[0], Value::Text(std::move(separator)), pieces[1]});
  if (from_right) return Value::Tuple({empty, empty, call.input()});
  return Value::Tuple({call.input(), empty, empty});
}

absl::StatusOr<Value> SplitLinesMethod(const Call& call) {
  ASSIGN_OR_RETURN(std::vector<Value> lines, SplitLines(Self(call), call.Truth(0, false), call.budget()));
  return Value::List(std::move(lines));
}

template <TemplateText (*map)(const TemplateText&)>
absl::StatusOr<Value> MapText(const Call& call) {
  return Value::Text(map(Self(call)));
}

absl::StatusOr<Value> Replace(const Call& call) {
  ASSIGN_OR_RETURN(TemplateText from, TextArg(call, 0));
  ASSIGN_OR_RETURN(TemplateText to, TextArg(call, 1));
  ASSIGN_OR_RETURN(int64_t count, call.Int(2, -1));
  ASSIGN_OR_RETURN(TemplateText text, ReplaceText(Self(call), from, to, count, call.budget()));
  return Value::Text(std::move(text));
}

// self[start:end], where arguments 1 and 2 are Python slice bounds.
absl::StatusOr<TemplateText> Window(const Call& call) {
  if (!call.Has(1) && !call.Has(2)) return Self(call);
  TemplateSliceBounds bounds{call.Has(1) ? call.Arg(1) : Value::None(), call.Has(2) ? call.Arg(2) : Value::None(),
                             Value::None()};
  ASSIGN_OR_RETURN(Value window, TemplateSlice(call.input(), bounds, call.budget()));
  return window.AsText();
}

template <bool at_end>
absl::StatusOr<Value> HasAffix(const Call& call) {
  ASSIGN_OR_RETURN(TemplateText text, Window(call));
  std::vector<Value> affixes = {call.Arg(0)};
  const TemplateSequence* several = call.Arg(0).AsSequence();
  if (several && several->kind == Kind::kTuple) affixes = several->items;
  for (const Value& affix : affixes) {
    if (!affix.IsText()) return TemplateFailed("a prefix or suffix that must be a text");
    const std::string& wanted = affix.bytes();
    if (wanted.size() > text.size()) continue;
    size_t at = at_end ? text.size() - wanted.size() : 0;
    if (text.bytes().compare(at, wanted.size(), wanted) == 0) return Value::Bool(true);
  }
  return Value::Bool(false);
}

template <bool at_end>
absl::StatusOr<Value> RemoveAffix(const Call& call) {
  ASSIGN_OR_RETURN(TemplateText affix, TextArg(call, 0));
  const TemplateText& text = Self(call);
  if (affix.size() > text.size()) return call.input();
  size_t at = at_end ? text.size() - affix.size() : 0;
  if (text.bytes().compare(at, affix.size(), affix.bytes()) != 0) return call.input();
  return Value::Text(at_end ? text.Slice(0, at) : text.Slice(affix.size(), text.size()));
}

// The character index of the first or last occurrence, or -1.
template <bool last>
absl::StatusOr<int64_t> FindIndex(const Call& call) {
  ASSIGN_OR_RETURN(TemplateText needle, TextArg(call, 0));
  const std::string& bytes = Self(call).bytes();
  size_t at;
  if (last) {
    std::string reversed(bytes.rbegin(), bytes.rend());
    std::string reversed_needle(needle.bytes().rbegin(), needle.bytes().rend());
    at = FindBytes(reversed, reversed_needle, 0);
    if (at != std::string::npos) at = bytes.size() - at - needle.size();
  } else {
    at = FindBytes(bytes, needle.bytes(), 0);
  }
  if (at == std::string::npos) return -1;
  return static_cast<int64_t>(CountChars(absl::string_view(bytes).substr(0, at)));
}

template <bool last>
absl::StatusOr<Value> Find(const Call& call) {
  ASSIGN_OR_RETURN(int64_t index, FindIndex<last>(call));
  return Value::Int(index);
}

template <bool last>
absl::StatusOr<Value> Index(const Call& call) {
  ASSIGN_OR_RETURN(int64_t index, FindIndex<last>(call));
  if (index < 0) return TemplateFailed("a text that doesn't occur");
  return Value::Int(index);
}

absl::StatusOr<Value> CountText(const Call& call) {
  ASSIGN_OR_RETURN(TemplateText needle, TextArg(call, 0));
  if (needle.empty()) return Value::Int(static_cast<int64_t>(CountChars(Self(call).bytes())) + 1);
  TemplateSplit split{&needle, -1, false};
  ASSIGN_OR_RETURN(std::vector<Value> pieces, SplitText(Self(call), split, call.budget()));
  return Value::Int(static_cast<int64_t>(pieces.size()) - 1);
}

absl::StatusOr<Value> Join(const Call& call) {
  ASSIGN_OR_RETURN(std::vector<Value> items, TemplateIterate(call.Arg(0), call.budget()));
  std::vector<TemplateText> parts;
  for (const Value& item : items) {
    if (!item.IsText()) return TemplateFailed("join of something that is no text");
    parts.push_back(item.AsText());
  }
  ASSIGN_OR_RETURN(TemplateText text, JoinTexts(Self(call), parts, call.budget()));
  return Value::Text(std::move(text));
}

template <bool (*belongs)(uint32_t)>
absl::StatusOr<Value> AllChars(const Call& call) {
  const std::string& bytes = Self(call).bytes();
  for (size_t offset = 0; offset < bytes.size();) {
    TemplateChar c = DecodeChar(bytes, offset);
    if (!belongs(c.code_point)) return Value::Bool(false);
    offset += c.num_bytes;
  }
  return Value::Bool(!bytes.empty());
}

bool IsDigitChar(uint32_t c) { return c >= '0' && c <= '9'; }

const std::vector<TemplateFunction>& TextMethods() {
  static const auto* methods = new std::vector<TemplateFunction>{
      {"strip", {"chars"}, 0, Strip<Side::kBoth>},
      {"lstrip", {"chars"}, 0, Strip<Side::kLeft>},
      {"rstrip", {"chars"}, 0, Strip<Side::kRight>},
      {"split", {"sep", "maxsplit"}, 0, Split<false>},
      {"rsplit", {"sep", "maxsplit"}, 0, Split<true>},
      {"partition", {"sep"}, 1, Partition<false>},
      {"rpartition", {"sep"}, 1, Partition<true>},
      {"splitlines", {"keepends"}, 0, SplitLinesMethod},
      {"upper", {}, 0, MapText<UpperText>},
      {"lower", {}, 0, MapText<LowerText>},
      {"capitalize", {}, 0, MapText<CapitalizeText>},
      {"title", {}, 0, MapText<TitleText>},
      {"replace", {"old", "new", "count"}, 2, Replace},
      {"startswith", {"prefix", "start", "end"}, 1, HasAffix<false>},
      {"endswith", {"suffix", "start", "end"}, 1, HasAffix<true>},
      {"removeprefix", {"prefix"}, 1, RemoveAffix<false>},
      {"removesuffix", {"suffix"}, 1, RemoveAffix<true>},
      {"find", {"sub"}, 1, Find<false>},
      {"rfind", {"sub"}, 1, Find<true>},
      {"index", {"sub"}, 1, Index<false>},
      {"rindex", {"sub"}, 1, Index<true>},
      {"count", {"sub"}, 1, CountText},
      {"join", {"iterable"}, 1, Join},
      {"isspace", {}, 0, AllChars<IsSpaceChar>},
      {"isdigit", {}, 0, AllChars<IsDigitChar>},
  };
  return *methods;
}

absl::StatusOr<Value> Get(const Call& call) {
  if (TemplateHashKey(call.Arg(0)).empty()) return TemplateFailed("a value that can't be a key");
  const Value* found = call.input().AsDict()->Find(call.Arg(0));
  if (found) return *found;
  return call.Has(1) ? call.Arg(1) : Value::None();
}

enum class View { kKeys, kValues, kItems };

template <View view>
absl::StatusOr<Value> MakeView(const Call& call) {
  const TemplateDict& dict = *call.input().AsDict();
  RETURN_IF_ERROR(call.budget().Spend(static_cast<int64_t>(dict.items().size())));
  std::vector<Value> items;
  for (const TemplateDict::Item& item : dict.items()) {
    if (view == View::kKeys) items.push_back(item.key);
    if (view == View::kValues) items.push_back(item.value);
    if (view == View::kItems) items.push_back(Value::Tuple({item.key, item.value}));
  }
  return Value::Sequence(std::make_shared<const TemplateSequence>(Kind::kView, std::move(items)));
}

absl::StatusOr<Value> Same(const Call& call) { return call.input(); }

const std::vector<TemplateFunction>& DictMethods() {
  static const auto* methods = new std::vector<TemplateFunction>{
      {"get", {"key", "default"}, 1, Get},
      {"items", {}, 0, MakeView<View::kItems>},
      {"keys", {}, 0, MakeView<View::kKeys>},
      {"values", {}, 0, MakeView<View::kValues>},
      {"copy", {}, 0, Same},
  };
  return *methods;
}

// How often, and where first, the argument occurs among the items.
struct Occurrences {
  int64_t count = 0;
  int64_t first = -1;
};

absl::StatusOr<Occurrences> FindItems(const Call& call) {
  Occurrences result;
  const std::vector<Value>& items = call.input().AsSequence()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(bool equal, TemplateEqual(items[i], call.Arg(0), call.budget()));
    if (equal && result.count++ == 0) result.first = static_cast<int64_t>(i);
  }
  return result;
}

absl::StatusOr<Value> CountItems(const Call& call) {
  ASSIGN_OR_RETURN(Occurrences found, FindItems(call));
  return Value::Int(found.count);
}

absl::StatusOr<Value> IndexOfItem(const Call& call) {
  ASSIGN_OR_RETURN(Occurrences found, FindItems(call));
  if (found.count == 0) return TemplateFailed("an item that doesn't occur");
  return Value::Int(found.first);
}

const std::vector<TemplateFunction>& SequenceMethods() {
  static const auto* methods = new std::vector<TemplateFunction>{
      {"index", {"value"}, 1, IndexOfItem},
      {"count", {"value"}, 1, CountItems},
  };
  return *methods;
}

absl::StatusOr<Value> Cycle(const Call& call) {
  const std::vector<Value>& choices = call.raw().positional;
  if (choices.empty()) return TemplateFailed("cycle without items");
  return choices[call.input().AsLoop()->index0 % choices.size()];
}

const std::vector<TemplateFunction>& LoopMethods() {
  static const auto* methods = new std::vector<TemplateFunction>{{"cycle", {}, 0, Cycle, /*variadic=*/true}};
  return *methods;
}

}  // namespace

const TemplateFunction* FindTemplateMethod(const TemplateValue& value, absl::string_view name) {
  if (value.IsText()) return FindTemplateFunction(TextMethods(), name);
  if (value.AsDict()) return FindTemplateFunction(DictMethods(), name);
  if (value.AsLoop()) return FindTemplateFunction(LoopMethods(), name);
  const TemplateSequence* sequence = value.AsSequence();
  if (!sequence || sequence->kind == Kind::kView || sequence->kind == Kind::kIterator) return nullptr;
  return FindTemplateFunction(SequenceMethods(), name);
}

bool IsTemplateMethod(absl::string_view name) {
  return FindTemplateFunction(TextMethods(), name) || FindTemplateFunction(DictMethods(), name) ||
         FindTemplateFunction(SequenceMethods(), name) || FindTemplateFunction(LoopMethods(), name);
}

bool HidesDictKey(absl::string_view name) {
  return name == "clear" || name == "pop" || name == "popitem" || name == "setdefault" || name == "update" ||
         name == "fromkeys";
}

}  // namespace weft
