#include "server/text/template_operators.h"

#include <cmath>
#include <limits>
#include <string>

#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_strings.h"
#include "server/text/template_unicode.h"

namespace weft {
namespace {

using Value = TemplateValue;
using Kind = TemplateSequence::Kind;
using Op = TemplateBinaryOp;

absl::Status Overflow() { return TemplateFailed("an integer beyond 64 bits"); }

absl::StatusOr<Value> IntPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return TemplateFailed("division by zero");
    return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) return Overflow();
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return Value::Int(result);
}

// Python rounds quotients down, so a remainder has the sign of the divisor.
absl::StatusOr<Value> IntDivide(Op op, int64_t a, int64_t b) {
  if (b == 0) return TemplateFailed("division by zero");
  if (op == Op::kDivide) return Value::Float(static_cast<double>(a) / static_cast<double>(b));
  if (a == std::numeric_limits<int64_t>::min() && b == -1) return Overflow();
  int64_t quotient = a / b;
  int64_t remainder = a % b;
  if (remainder != 0 && (remainder < 0) != (b < 0)) {
    --quotient;
    remainder += b;
  }
  return Value::Int(op == Op::kFloorDivide ? quotient : remainder);
}

absl::StatusOr<Value> IntArithmetic(Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Op::kAdd:
      return __builtin_add_overflow(a, b, &result) ? Overflow() : absl::StatusOr<Value>(Value::Int(result));
    case Op::kSubtract:
      return __builtin_sub_overflow(a, b, &result) ? Overflow() : absl::StatusOr<Value>(Value::Int(result));
    case Op::kMultiply:
      return __builtin_mul_overflow(a, b, &result) ? Overflow() : absl::StatusOr<Value>(Value::Int(result));
    case Op::kPower:
      return IntPower(a, b);
    default:
      return IntDivide(op, a, b);
  }
}

absl::StatusOr<Value> FloatPower(double a, double b) {
  if (a == 0 && b < 0) return TemplateFailed("division by zero");
  if (a < 0 && b != std::floor(b)) return TemplateFailed("a complex result");
  double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) return TemplateFailed("a float out of range");
  return Value::Float(result);
}

absl::StatusOr<Value> FloatArithmetic(Op op, double a, double b) {
  if (b == 0 && (op == Op::kDivide || op == Op::kFloorDivide || op == Op::kModulo)) {
    return TemplateFailed("division by zero");
  }
  switch (op) {
    case Op::kAdd:
      return Value::Float(a + b);
    case Op::kSubtract:
      return Value::Float(a - b);
    case Op::kMultiply:
      return Value::Float(a * b);
    case Op::kDivide:
      return Value::Float(a / b);
    case Op::kPower:
      return FloatPower(a, b);
    default:
      break;
  }
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == Op::kModulo) return Value::Float(remainder == 0 ? std::copysign(0.0, b) : remainder);
  double quotient = (a - remainder) / b;
  double floored = std::floor(quotient);
  return Value::Float(quotient - floored > 0.5 ? floored + 1 : floored);
}

absl::StatusOr<Value> Repeat(const Value& value, int64_t count, TemplateBudget& budget) {
  size_t times = count > 0 ? static_cast<size_t>(count) : 0;
  if (value.IsText()) {
    size_t size = value.AsText().size();
    if (size > 0 && times > budget.max_text_bytes() / size) return TemplateOverBudget("too much text");
    RETURN_IF_ERROR(budget.SpendText(size * times));
    RETURN_IF_ERROR(budget.Spend(size == 0 ? 0 : static_cast<int64_t>(times)));
    TemplateText text;
    for (size_t i = 0; size > 0 && i < times; ++i) text.Append(value.AsText());
    return Value::Text(std::move(text));
  }
  const TemplateSequence& sequence = *value.AsSequence();
  std::vector<Value> items;
  for (size_t i = 0; !sequence.items.empty() && i < times; ++i) {
    RETURN_IF_ERROR(budget.Spend(static_cast<int64_t>(sequence.items.size())));
    items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  }
  return sequence.kind == Kind::kList ? Value::List(std::move(items)) : Value::Tuple(std::move(items));
}

bool IsListOrTuple(const Value& value) {
  const TemplateSequence* sequence = value.AsSequence();
  return sequence && (sequence->kind == Kind::kList || sequence->kind == Kind::kTuple);
}

absl::StatusOr<Value> Join(const Value& left, const Value& right, TemplateBudget& budget) {
  if (left.IsText() && right.IsText()) {
    RETURN_IF_ERROR(budget.SpendText(left.AsText().size() + right.AsText().size()));
    TemplateText text = left.AsText();
    text.Append(right.AsText());
    return Value::Text(std::move(text));
  }
  if (IsListOrTuple(left) && IsListOrTuple(right) && left.AsSequence()->kind == right.AsSequence()->kind) {
    std::vector<Value> items = left.AsSequence()->items;
    const std::vector<Value>& more = right.AsSequence()->items;
    items.insert(items.end(), more.begin(), more.end());
    RETURN_IF_ERROR(budget.Spend(static_cast<int64_t>(items.size())));
    return left.AsSequence()->kind == Kind::kList ? Value::List(std::move(items)) : Value::Tuple(std::move(items));
  }
  return TemplateFailed("operands that can't be added");
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item, TemplateBudget& budget) {
  if (container.IsText()) {
    if (!item.IsText()) return TemplateFailed("'in' a text needs a text");
    RETURN_IF_ERROR(budget.SpendBytes(container.AsText().size()));
    return FindBytes(container.bytes(), item.bytes(), 0) != std::string::npos;
  }
  if (const TemplateDict* dict = container.AsDict()) {
    if (TemplateHashKey(item).empty()) return TemplateFailed("a value that can't be a key");
    return dict->Find(item) != nullptr;
  }
  ASSIGN_OR_RETURN(std::vector<Value> items, TemplateIterate(container, budget));
  for (const Value& candidate : items) {
    ASSIGN_OR_RETURN(bool equal, TemplateEqual(candidate, item, budget));
    if (equal) return true;
  }
  return false;
}

absl::StatusOr<bool> EqualDicts(const TemplateDict& left, const TemplateDict& right, TemplateBudget& budget) {
  if (left.items().size() != right.items().size()) return false;
  for (const TemplateDict::Item& item : left.items()) {
    const Value* other = right.Find(item.key);
    if (!other) return false;
    ASSIGN_OR_RETURN(bool equal, TemplateEqual(item.value, *other, budget));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> EqualSequences(const TemplateSequence& left, const TemplateSequence& right,
                                    TemplateBudget& budget) {
  if (&left == &right) return true;
  if (left.kind != right.kind || left.items.size() != right.items.size()) return false;
  if (left.kind == Kind::kIterator || left.kind == Kind::kView) return false;
  for (size_t i = 0; i < left.items.size(); ++i) {
    ASSIGN_OR_RETURN(bool equal, TemplateEqual(left.items[i], right.items[i], budget));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> LessSequences(const TemplateSequence& left, const TemplateSequence& right,
                                   TemplateBudget& budget) {
  for (size_t i = 0; i < left.items.size() && i < right.items.size(); ++i) {
    ASSIGN_OR_RETURN(bool equal, TemplateEqual(left.items[i], right.items[i], budget));
    if (!equal) return TemplateLess(left.items[i], right.items[i], budget);
  }
  return left.items.size() < right.items.size();
}

}  // namespace

absl::StatusOr<TemplateValue> TemplateArithmetic(TemplateBinaryOp op, const TemplateValue& left,
                                                 const TemplateValue& right, TemplateBudget& budget) {
  if (left.IsUndefined() || right.IsUndefined()) return TemplateFailed("arithmetic on an undefined value");
  if (left.IsIntegral() && right.IsIntegral()) return IntArithmetic(op, left.ToInt(), right.ToInt());
  if (left.IsNumber() && right.IsNumber()) return FloatArithmetic(op, left.ToDouble(), right.ToDouble());
  if (op == Op::kAdd) return Join(left, right, budget);
  if (op == Op::kMultiply) {
    if ((left.IsText() || IsListOrTuple(left)) && right.IsIntegral()) return Repeat(left, right.ToInt(), budget);
    if ((right.IsText() || IsListOrTuple(right)) && left.IsIntegral()) return Repeat(right, left.ToInt(), budget);
  }
  return TemplateFailed("operands of the wrong type");
}

absl::StatusOr<bool> TemplateEqual(const TemplateValue& left, const TemplateValue& right, TemplateBudget& budget) {
  RETURN_IF_ERROR(budget.Spend(1));
  if (left.IsNumber() && right.IsNumber()) {
    if (left.IsIntegral() && right.IsIntegral()) return left.ToInt() == right.ToInt();
    return left.ToDouble() == right.ToDouble();
  }
  if (left.IsText() && right.IsText()) {
    if (left.AsText().size() != right.AsText().size()) return false;
    RETURN_IF_ERROR(budget.SpendBytes(left.AsText().size()));
    return left.bytes() == right.bytes();
  }
  if (left.AsSequence() && right.AsSequence()) return EqualSequences(*left.AsSequence(), *right.AsSequence(), budget);
  if (left.AsDict() && right.AsDict()) return EqualDicts(*left.AsDict(), *right.AsDict(), budget);
  return left.SameObject(right);
}

absl::StatusOr<bool> TemplateLess(const TemplateValue& left, const TemplateValue& right, TemplateBudget& budget) {
  RETURN_IF_ERROR(budget.Spend(1));
  if (left.IsIntegral() && right.IsIntegral()) return left.ToInt() < right.ToInt();
  if (left.IsNumber() && right.IsNumber()) return left.ToDouble() < right.ToDouble();
  if (left.IsText() && right.IsText()) {
    RETURN_IF_ERROR(budget.SpendBytes(left.AsText().size()));
    return left.bytes() < right.bytes();
  }
  if (IsListOrTuple(left) && IsListOrTuple(right) && left.AsSequence()->kind == right.AsSequence()->kind) {
    return LessSequences(*left.AsSequence(), *right.AsSequence(), budget);
  }
  return TemplateFailed("values that have no order");
}

absl::StatusOr<bool> TemplateCompare(TemplateCompareOp op, const TemplateValue& left, const TemplateValue& right,
                                     TemplateBudget& budget) {
  auto negate = [](absl::StatusOr<bool> result) -> absl::StatusOr<bool> {
    if (!result.ok()) return result;
    return !*result;
  };
  switch (op) {
    case TemplateCompareOp::kEqual:
      return TemplateEqual(left, right, budget);
    case TemplateCompareOp::kNotEqual:
      return negate(TemplateEqual(left, right, budget));
    case TemplateCompareOp::kLess:
      return TemplateLess(left, right, budget);
    case TemplateCompareOp::kGreater:
      return TemplateLess(right, left, budget);
    case TemplateCompareOp::kIn:
      return Contains(right, left, budget);
    case TemplateCompareOp::kNotIn:
      return negate(Contains(right, left, budget));
    default:
      break;
  }
  // a <= b is "a < b or a == b", so that it is false for NaN either way.
  bool swap = op == TemplateCompareOp::kGreaterEqual;
  ASSIGN_OR_RETURN(bool less, TemplateLess(swap ? right : left, swap ? left : right, budget));
  if (less) return true;
  return TemplateEqual(left, right, budget);
}

bool TemplateTruth(const TemplateValue& value) {
  if (value.IsUndefined() || value.IsNone()) return false;
  if (value.IsNumber()) return value.IsFloat() ? value.ToDouble() != 0 : value.ToInt() != 0;
  if (value.IsText()) return !value.AsText().empty();
  if (const TemplateSequence* sequence = value.AsSequence()) {
    return sequence->kind == Kind::kIterator || !sequence->items.empty();
  }
  if (const TemplateDict* dict = value.AsDict()) return !dict->items().empty();
  return true;
}

absl::StatusOr<int64_t> TemplateLength(const TemplateValue& value) {
  if (value.IsUndefined()) return 0;
  if (value.IsText()) return static_cast<int64_t>(CountChars(value.bytes()));
  if (const TemplateDict* dict = value.AsDict()) return static_cast<int64_t>(dict->items().size());
  if (const TemplateLoop* loop = value.AsLoop()) return static_cast<int64_t>(loop->items->items.size());
  const TemplateSequence* sequence = value.AsSequence();
  if (sequence && sequence->kind != Kind::kIterator) return static_cast<int64_t>(sequence->items.size());
  return TemplateFailed("a value without a length");
}

absl::StatusOr<std::vector<TemplateValue>> TemplateIterate(const TemplateValue& value, TemplateBudget& budget) {
  std::vector<Value> items;
  if (value.IsUndefined()) return items;
  if (const TemplateSequence* sequence = value.AsSequence()) {
    if (sequence->consumed) return items;
    sequence->consumed = sequence->kind == Kind::kIterator;
    RETURN_IF_ERROR(budget.Spend(static_cast<int64_t>(sequence->items.size())));
    return sequence->items;
  }
  if (const TemplateDict* dict = value.AsDict()) {
    RETURN_IF_ERROR(budget.Spend(static_cast<int64_t>(dict->items().size())));
    for (const TemplateDict::Item& item : dict->items()) items.push_back(item.key);
    return items;
  }
  if (!value.IsText()) return TemplateFailed("a value that can't be iterated");
  const TemplateText& text = value.AsText();
  for (size_t offset = 0; offset < text.size();) {
    RETURN_IF_ERROR(budget.Spend(1));
    size_t num_bytes = DecodeChar(text.bytes(), offset).num_bytes;
    items.push_back(Value::Text(text.Slice(offset, offset + num_bytes)));
    offset += num_bytes;
  }
  return items;
}

}  // namespace weft
