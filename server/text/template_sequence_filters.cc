// Filters over sequences: picking, ordering, mapping, joining.
#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_filters.h"
#include "server/text/template_operators.h"
#include "server/text/template_print.h"
#include "server/text/template_strings.h"
#include "server/text/template_unicode.h"

namespace weft {
namespace {

using Value = TemplateValue;
using Call = TemplateCall;
using Kind = TemplateSequence::Kind;

absl::StatusOr<std::vector<Value>> Items(const Call& call) { return TemplateIterate(call.input(), call.budget()); }

Value Lazy(std::vector<Value> items) {
  return Value::Sequence(std::make_shared<const TemplateSequence>(Kind::kIterator, std::move(items)));
}

// item.a.b.0 for the path "a.b.0"; the item itself when the path is none. Each step that leads to undefined goes on
// with `fallback` instead.
absl::StatusOr<Value> GetPath(const Value& item, const Value& path, const Value& fallback = Value()) {
  if (path.IsNone() || path.IsUndefined()) return item;
  if (!path.IsText()) {
    ASSIGN_OR_RETURN(Value found, TemplateGetItem(item, path));
    return found.IsUndefined() ? fallback : found;
  }
  Value current = item;
  for (absl::string_view part : absl::StrSplit(path.bytes(), '.')) {
    int64_t index = 0;
    bool is_index = !part.empty() && part[0] >= '0' && part[0] <= '9' && absl::SimpleAtoi(part, &index);
    ASSIGN_OR_RETURN(current, TemplateGetItem(current, is_index ? Value::Int(index) : Value::Untrusted(part)));
    if (current.IsUndefined()) current = fallback;
  }
  return current;
}

// What an item is ordered or told apart by: an attribute, in lower case unless the case counts.
struct SortKey {
  Value attribute = Value::None();
  bool case_sensitive = false;

  absl::StatusOr<Value> Of(const Value& item) const {
    ASSIGN_OR_RETURN(Value key, GetPath(item, attribute));
    if (case_sensitive || !key.IsText()) return key;
    return Value::Text(LowerText(key.AsText()));
  }
};

struct Keyed {
  Value key;
  Value item;
};

absl::StatusOr<std::vector<Keyed>> WithKeys(std::vector<Value> items, const SortKey& sort_key, TemplateBudget& budget) {
  std::vector<Keyed> keyed;
  for (Value& item : items) {
    ASSIGN_OR_RETURN(Value key, sort_key.Of(item));
    if (key.IsText()) RETURN_IF_ERROR(budget.SpendText(key.AsText().size()));
    keyed.push_back({std::move(key), std::move(item)});
  }
  return keyed;
}

// A stable merge sort that can stop at an error, which std::stable_sort can't.
absl::Status MergeSort(std::vector<Keyed>& items, bool reverse, TemplateBudget& budget) {
  std::vector<Keyed> merged(items.size());
  for (size_t width = 1; width < items.size(); width *= 2) {
    for (size_t begin = 0; begin < items.size(); begin += 2 * width) {
      size_t middle = std::min(begin + width, items.size());
      size_t end = std::min(begin + 2 * width, items.size());
      size_t left = begin;
      size_t right = middle;
      for (size_t out = begin; out < end; ++out) {
        bool take_right = left == middle;
        if (left < middle && right < end) {
          const Value& smaller = reverse ? items[left].key : items[right].key;
          const Value& larger = reverse ? items[right].key : items[left].key;
          ASSIGN_OR_RETURN(take_right, TemplateLess(smaller, larger, budget));
        }
        merged[out] = std::move(items[take_right ? right++ : left++]);
      }
    }
    items.swap(merged);
  }
  return absl::OkStatus();
}

std::vector<Value> WithoutKeys(std::vector<Keyed> keyed) {
  std::vector<Value> items;
  for (Keyed& entry : keyed) items.push_back(std::move(entry.item));
  return items;
}

absl::StatusOr<Value> Sort(const Call& call) {
  SortKey key{call.Has(2) ? call.Arg(2) : Value::None(), call.Truth(1, false)};
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  ASSIGN_OR_RETURN(std::vector<Keyed> keyed, WithKeys(std::move(items), key, call.budget()));
  RETURN_IF_ERROR(MergeSort(keyed, call.Truth(0, false), call.budget()));
  return Value::List(WithoutKeys(std::move(keyed)));
}

absl::StatusOr<Value> DictSort(const Call& call) {
  const TemplateDict* dict = call.input().AsDict();
  if (!dict) return TemplateFailed("dictsort of something that is no dict");
  std::string by = call.Has(1) && call.Arg(1).IsText() ? call.Arg(1).bytes() : "key";
  if (by != "key" && by != "value") return TemplateFailed("dictsort goes by key or value");
  SortKey key{Value::Int(by == "key" ? 0 : 1), call.Truth(0, false)};
  std::vector<Value> pairs;
  for (const TemplateDict::Item& item : dict->items()) pairs.push_back(Value::Tuple({item.key, item.value}));
  ASSIGN_OR_RETURN(std::vector<Keyed> keyed, WithKeys(std::move(pairs), key, call.budget()));
  RETURN_IF_ERROR(MergeSort(keyed, call.Truth(2, false), call.budget()));
  return Value::List(WithoutKeys(std::move(keyed)));
}

template <bool largest>
absl::StatusOr<Value> Extreme(const Call& call) {
  SortKey key{call.Has(1) ? call.Arg(1) : Value::None(), call.Truth(0, false)};
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  ASSIGN_OR_RETURN(std::vector<Keyed> keyed, WithKeys(std::move(items), key, call.budget()));
  if (keyed.empty()) return Value();
  size_t best = 0;
  for (size_t i = 1; i < keyed.size(); ++i) {
    const Value& smaller = largest ? keyed[best].key : keyed[i].key;
    const Value& larger = largest ? keyed[i].key : keyed[best].key;
    ASSIGN_OR_RETURN(bool better, TemplateLess(smaller, larger, call.budget()));
    if (better) best = i;
  }
  return keyed[best].item;
}

absl::StatusOr<Value> Unique(const Call& call) {
  SortKey key{call.Has(1) ? call.Arg(1) : Value::None(), call.Truth(0, false)};
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  ASSIGN_OR_RETURN(std::vector<Keyed> keyed, WithKeys(std::move(items), key, call.budget()));
  TemplateDict seen;
  std::vector<Value> kept;
  for (Keyed& entry : keyed) {
    if (TemplateHashKey(entry.key).empty()) return TemplateFailed("unique of values that can't be hashed");
    if (seen.Find(entry.key)) continue;
    seen.Set(entry.key, Value::None());
    kept.push_back(std::move(entry.item));
  }
  return Lazy(std::move(kept));
}

absl::StatusOr<Value> Join(const Call& call) {
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  ASSIGN_OR_RETURN(TemplateText separator, TemplateStr(call.Arg(0), call.budget()));
  std::vector<TemplateText> parts;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(Value part, GetPath(item, call.Arg(1)));
    ASSIGN_OR_RETURN(TemplateText text, TemplateStr(part, call.budget()));
    parts.push_back(std::move(text));
  }
  ASSIGN_OR_RETURN(TemplateText text, JoinTexts(separator, parts, call.budget()));
  return Value::Text(std::move(text));
}

absl::StatusOr<Value> First(const Call& call) {
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  return items.empty() ? Value() : items.front();
}

absl::Status RequireReversible(const Value& value) {
  const TemplateSequence* sequence = value.AsSequence();
  if (sequence && sequence->kind == Kind::kIterator) return TemplateFailed("a lazy sequence has no end to begin from");
  return absl::OkStatus();
}

absl::StatusOr<Value> Last(const Call& call) {
  RETURN_IF_ERROR(RequireReversible(call.input()));
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  return items.empty() ? Value() : items.back();
}

absl::StatusOr<Value> Reverse(const Call& call) {
  if (call.input().IsText()) {
    return TemplateSlice(call.input(), {Value::None(), Value::None(), Value::Int(-1)}, call.budget());
  }
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  std::reverse(items.begin(), items.end());
  return Lazy(std::move(items));
}

absl::StatusOr<Value> ToList(const Call& call) {
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  return Value::List(std::move(items));
}

absl::StatusOr<Value> DictItems(const Call& call) {
  if (call.input().IsUndefined()) return Lazy({});
  const TemplateDict* dict = call.input().AsDict();
  if (!dict) return TemplateFailed("items of something that is no dict");
  std::vector<Value> items;
  for (const TemplateDict::Item& item : dict->items()) items.push_back(Value::Tuple({item.key, item.value}));
  RETURN_IF_ERROR(call.budget().Spend(static_cast<int64_t>(items.size())));
  return Lazy(std::move(items));
}

absl::StatusOr<Value> Sum(const Call& call) {
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  Value total = call.Has(1) ? call.Arg(1) : Value::Int(0);
  if (total.IsText()) return TemplateFailed("sum doesn't add texts");
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(Value part, GetPath(item, call.Arg(0)));
    ASSIGN_OR_RETURN(total, TemplateArithmetic(TemplateBinaryOp::kAdd, total, part, call.budget()));
  }
  return total;
}

absl::StatusOr<Value> Batch(const Call& call) {
  ASSIGN_OR_RETURN(int64_t size, call.Int(0, 0));
  if (size <= 0) return TemplateFailed("batch needs a positive size");
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  std::vector<Value> batches;
  std::vector<Value> batch;
  for (Value& item : items) {
    if (static_cast<int64_t>(batch.size()) == size) batches.push_back(Value::List(std::exchange(batch, {})));
    batch.push_back(std::move(item));
  }
  if (!batch.empty()) {
    int64_t missing = call.Has(1) && !call.Arg(1).IsNone() ? size - static_cast<int64_t>(batch.size()) : 0;
    RETURN_IF_ERROR(call.budget().Spend(missing));
    batch.insert(batch.end(), static_cast<size_t>(missing), call.Arg(1));
    batches.push_back(Value::List(std::move(batch)));
  }
  return Lazy(std::move(batches));
}

// raw() without its first `skip` positional arguments: what is left for the filter or test that the first one names.
TemplateArguments Rest(const TemplateArguments& raw, size_t skip) {
  TemplateArguments rest = raw;
  rest.positional.erase(rest.positional.begin(), rest.positional.begin() + static_cast<std::ptrdiff_t>(skip));
  return rest;
}

// The function that positional argument `i` names.
absl::StatusOr<const TemplateFunction*> Named(const Call& call, size_t i,
                                              const TemplateFunction* (*find)(absl::string_view)) {
  const Value& name = call.raw().positional[i];
  const TemplateFunction* found = name.IsText() ? find(name.bytes()) : nullptr;
  if (!found) return TemplateFailed("no such filter or test in the subset");
  return found;
}

absl::StatusOr<Value> MapAttribute(const Call& call) {
  Value attribute;
  Value fallback;
  for (const auto& [name, value] : call.raw().named) {
    if (name != "attribute" && name != "default") return TemplateFailed("an unknown argument of map");
    (name == "attribute" ? attribute : fallback) = value;
  }
  if (attribute.IsUndefined()) return TemplateFailed("map needs a filter or an attribute");
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  for (Value& item : items) {
    ASSIGN_OR_RETURN(item, GetPath(item, attribute, fallback));
  }
  return Lazy(std::move(items));
}

absl::StatusOr<Value> Map(const Call& call) {
  if (call.raw().positional.empty()) return MapAttribute(call);
  ASSIGN_OR_RETURN(const TemplateFunction* filter, Named(call, 0, FindTemplateFilter));
  TemplateArguments rest = Rest(call.raw(), 1);
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  for (Value& item : items) {
    ASSIGN_OR_RETURN(item, CallTemplateFunction(*filter, Call(item, rest, call.budget(), call.now())));
  }
  return Lazy(std::move(items));
}

// select, reject, selectattr and rejectattr: keep the items whose (attribute's) test equals `wanted`.
template <bool by_attribute, bool wanted>
absl::StatusOr<Value> Select(const Call& call) {
  const std::vector<Value>& positional = call.raw().positional;
  size_t test_at = by_attribute ? 1 : 0;
  if (positional.size() < test_at) return TemplateFailed("a missing attribute name");
  const TemplateFunction* test = nullptr;
  TemplateArguments rest;
  if (positional.size() > test_at) {
    ASSIGN_OR_RETURN(test, Named(call, test_at, FindTemplateTest));
    rest = Rest(call.raw(), test_at + 1);
  }
  ASSIGN_OR_RETURN(std::vector<Value> items, Items(call));
  std::vector<Value> kept;
  for (Value& item : items) {
    Value subject = item;
    if (by_attribute) {
      ASSIGN_OR_RETURN(subject, GetPath(item, positional[0]));
    }
    if (test) {
      ASSIGN_OR_RETURN(subject, CallTemplateFunction(*test, Call(subject, rest, call.budget(), call.now())));
    }
    if (TemplateTruth(subject) == wanted) kept.push_back(std::move(item));
  }
  return Lazy(std::move(kept));
}

}  // namespace

const std::vector<TemplateFunction>& TemplateSequenceFilters() {
  static const auto* filters = new std::vector<TemplateFunction>{
      {"join", {"d", "attribute"}, 0, Join},
      {"first", {}, 0, First},
      {"last", {}, 0, Last},
      {"list", {}, 0, ToList},
      {"items", {}, 0, DictItems},
      {"reverse", {}, 0, Reverse},
      {"sort", {"reverse", "case_sensitive", "attribute"}, 0, Sort},
      {"dictsort", {"case_sensitive", "by", "reverse"}, 0, DictSort},
      {"unique", {"case_sensitive", "attribute"}, 0, Unique},
      {"min", {"case_sensitive", "attribute"}, 0, Extreme<false>},
      {"max", {"case_sensitive", "attribute"}, 0, Extreme<true>},
      {"sum", {"attribute", "start"}, 0, Sum},
      {"batch", {"linecount", "fill_with"}, 1, Batch},
      {"map", {}, 0, Map, /*variadic=*/true},
      {"select", {}, 0, Select<false, true>, /*variadic=*/true},
      {"reject", {}, 0, Select<false, false>, /*variadic=*/true},
      {"selectattr", {}, 0, Select<true, true>, /*variadic=*/true},
      {"rejectattr", {}, 0, Select<true, false>, /*variadic=*/true},
  };
  return *filters;
}

}  // namespace weft
