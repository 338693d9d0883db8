// Subscripts: the part of template_operators.h that looks inside values.
#include <algorithm>
#include <limits>

#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_methods.h"
#include "server/text/template_operators.h"
#include "server/text/template_unicode.h"

namespace weft {
namespace {

using Value = TemplateValue;
using Kind = TemplateSequence::Kind;

Value LoopAttribute(const TemplateLoop& loop, absl::string_view name) {
  const std::vector<Value>& items = loop.items->items;
  int64_t index0 = static_cast<int64_t>(loop.index0);
  int64_t length = static_cast<int64_t>(items.size());
  if (name == "index0") return Value::Int(index0);
  if (name == "index") return Value::Int(index0 + 1);
  if (name == "first") return Value::Bool(index0 == 0);
  if (name == "last") return Value::Bool(index0 + 1 == length);
  if (name == "length") return Value::Int(length);
  if (name == "revindex") return Value::Int(length - index0);
  if (name == "revindex0") return Value::Int(length - index0 - 1);
  if (name == "depth") return Value::Int(1);
  if (name == "depth0") return Value::Int(0);
  if (name == "previtem" && index0 > 0) return items[loop.index0 - 1];
  if (name == "nextitem" && index0 + 1 < length) return items[loop.index0 + 1];
  return Value();
}

// The character or item at a Python index (negative counts from the end); undefined when out of range.
Value AtIndex(const Value& value, int64_t index) {
  absl::StatusOr<int64_t> length = TemplateLength(value);
  if (!length.ok()) return Value();
  if (index < 0) index += *length;
  if (index < 0 || index >= *length) return Value();
  if (!value.IsText()) return value.AsSequence()->items[static_cast<size_t>(index)];
  const TemplateText& text = value.AsText();
  size_t begin = CharOffset(text.bytes(), static_cast<size_t>(index));
  return Value::Text(text.Slice(begin, begin + DecodeChar(text.bytes(), begin).num_bytes));
}

bool IsIndexable(const Value& value) {
  const TemplateSequence* sequence = value.AsSequence();
  return value.IsText() || (sequence && sequence->kind != Kind::kView && sequence->kind != Kind::kIterator);
}

absl::StatusOr<int64_t> SliceBound(const Value& value, int64_t when_none) {
  if (value.IsNone()) return when_none;
  if (!value.IsIntegral()) return TemplateFailed("a slice bound that is no integer");
  return value.ToInt();
}

struct SliceRange {
  int64_t start;
  int64_t step;
  int64_t count;
};

// PySlice_AdjustIndices: clamps Python's bounds to a sequence of `length`.
absl::StatusOr<SliceRange> ResolveSlice(const TemplateSliceBounds& bounds, int64_t length) {
  ASSIGN_OR_RETURN(int64_t step, SliceBound(bounds.step, 1));
  if (step == 0) return TemplateFailed("a slice step of zero");
  step = std::max(step, -std::numeric_limits<int64_t>::max());
  bool forward = step > 0;
  int64_t lowest = forward ? 0 : -1;
  int64_t highest = forward ? length : length - 1;
  auto clamp = [&](int64_t bound) {
    if (bound < 0) bound += length;
    return std::clamp(bound, lowest, highest);
  };
  int64_t start = forward ? lowest : highest;
  int64_t stop = forward ? highest : lowest;
  if (!bounds.start.IsNone()) {
    ASSIGN_OR_RETURN(int64_t bound, SliceBound(bounds.start, 0));
    start = clamp(bound);
  }
  if (!bounds.stop.IsNone()) {
    ASSIGN_OR_RETURN(int64_t bound, SliceBound(bounds.stop, 0));
    stop = clamp(bound);
  }
  int64_t distance = forward ? stop - start : start - stop;
  int64_t stride = forward ? step : -step;
  return SliceRange{start, step, distance <= 0 ? 0 : (distance - 1) / stride + 1};
}

Value SliceText(const TemplateText& text, const SliceRange& range) {
  if (range.count == 0) return Value::Text(TemplateText());
  if (range.step == 1) {
    size_t begin = CharOffset(text.bytes(), static_cast<size_t>(range.start));
    absl::string_view rest = absl::string_view(text.bytes()).substr(begin);
    return Value::Text(text.Slice(begin, begin + CharOffset(rest, static_cast<size_t>(range.count))));
  }
  std::vector<size_t> offsets;  // of each character, and the end
  for (size_t offset = 0; offset < text.size(); offset += DecodeChar(text.bytes(), offset).num_bytes) {
    offsets.push_back(offset);
  }
  offsets.push_back(text.size());
  TemplateText result;
  for (int64_t i = 0; i < range.count; ++i) {
    size_t at = static_cast<size_t>(range.start + i * range.step);
    result.AppendRange(text, offsets[at], offsets[at + 1]);
  }
  return Value::Text(std::move(result));
}

}  // namespace

absl::StatusOr<TemplateValue> TemplateGetAttribute(const TemplateValue& value, absl::string_view name) {
  if (value.IsUndefined()) return TemplateFailed("an attribute of an undefined value");
  if (const TemplateLoop* loop = value.AsLoop()) return LoopAttribute(*loop, name);
  if (TemplateNamespace* space = value.AsNamespace()) {
    const Value* found = space->Find(name);
    return found ? *found : Value();
  }
  if (const TemplateFunction* method = FindTemplateMethod(value, name)) return Value::Function(method);
  if (const TemplateDict* dict = value.AsDict()) {
    const Value* found = HidesDictKey(name) ? nullptr : dict->Find(name);
    return found ? *found : Value();
  }
  return Value();
}

absl::StatusOr<TemplateValue> TemplateGetItem(const TemplateValue& value, const TemplateValue& key) {
  if (value.IsUndefined()) return TemplateFailed("an item of an undefined value");
  if (const TemplateDict* dict = value.AsDict()) {
    if (const Value* found = dict->Find(key)) return *found;
  }
  if (key.IsText()) return TemplateGetAttribute(value, key.bytes());
  if (key.IsIntegral() && IsIndexable(value)) return AtIndex(value, key.ToInt());
  return Value();
}

absl::StatusOr<TemplateValue> TemplateSlice(const TemplateValue& value, const TemplateSliceBounds& bounds,
                                            TemplateBudget& budget) {
  if (!IsIndexable(value)) return TemplateFailed("a slice of a value that is no sequence");
  ASSIGN_OR_RETURN(int64_t length, TemplateLength(value));
  ASSIGN_OR_RETURN(SliceRange range, ResolveSlice(bounds, length));
  if (value.IsText()) {
    RETURN_IF_ERROR(budget.Spend(range.step == 1 ? 0 : length));
    RETURN_IF_ERROR(budget.SpendChars(value.AsText().size()));
    return SliceText(value.AsText(), range);
  }
  RETURN_IF_ERROR(budget.Spend(range.count));
  const TemplateSequence& sequence = *value.AsSequence();
  std::vector<Value> items;
  for (int64_t i = 0; i < range.count; ++i) {
    items.push_back(sequence.items[static_cast<size_t>(range.start + i * range.step)]);
  }
  return Value::Sequence(std::make_shared<const TemplateSequence>(sequence.kind, std::move(items)));
}

}  // namespace weft
