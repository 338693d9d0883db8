// The tests behind `is`: `value is defined`, selectattr("role", "equalto", "user").
#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_function.h"
#include "server/text/template_operators.h"

namespace weft {
namespace {

using Value = TemplateValue;
using Call = TemplateCall;
using Kind = TemplateSequence::Kind;

template <bool (*holds)(const Value&)>
absl::StatusOr<Value> Kindly(const Call& call) {
  return Value::Bool(holds(call.input()));
}

bool IsUndefined(const Value& v) { return v.IsUndefined(); }
bool IsDefined(const Value& v) { return !v.IsUndefined(); }
bool IsNone(const Value& v) { return v.IsNone(); }
bool IsTrue(const Value& v) { return v.IsBool() && v.AsBool(); }
bool IsFalse(const Value& v) { return v.IsBool() && !v.AsBool(); }
bool IsBool(const Value& v) { return v.IsBool(); }
bool IsInteger(const Value& v) { return v.IsInt(); }
bool IsFloat(const Value& v) { return v.IsFloat(); }
bool IsNumber(const Value& v) { return v.IsNumber(); }
bool IsText(const Value& v) { return v.IsText(); }
bool IsMapping(const Value& v) { return v.AsDict() != nullptr; }
// Undefined has an iterator and a length, so Jinja counts it in.
bool IsIterable(const Value& v) { return v.IsUndefined() || v.IsText() || v.AsSequence() || v.AsDict() || v.AsLoop(); }
bool IsCallable(const Value& v) { return v.AsFunction() || v.AsMacro(); }

bool IsSequence(const Value& v) {
  if (v.IsUndefined() || v.IsText() || v.AsDict()) return true;
  const TemplateSequence* sequence = v.AsSequence();
  return sequence && sequence->kind != Kind::kView && sequence->kind != Kind::kIterator;
}

template <TemplateCompareOp op>
absl::StatusOr<Value> Compare(const Call& call) {
  ASSIGN_OR_RETURN(bool holds, TemplateCompare(op, call.input(), call.Arg(0), call.budget()));
  return Value::Bool(holds);
}

absl::StatusOr<Value> SameAs(const Call& call) { return Value::Bool(call.input().SameObject(call.Arg(0))); }

absl::StatusOr<bool> Divides(const Call& call, const Value& divisor) {
  ASSIGN_OR_RETURN(Value remainder,
                   TemplateArithmetic(TemplateBinaryOp::kModulo, call.input(), divisor, call.budget()));
  return TemplateEqual(remainder, Value::Int(0), call.budget());
}

absl::StatusOr<Value> DivisibleBy(const Call& call) {
  ASSIGN_OR_RETURN(bool divides, Divides(call, call.Arg(0)));
  return Value::Bool(divides);
}

absl::StatusOr<Value> IsEven(const Call& call) {
  ASSIGN_OR_RETURN(bool divides, Divides(call, Value::Int(2)));
  return Value::Bool(divides);
}

absl::StatusOr<Value> IsOdd(const Call& call) {
  ASSIGN_OR_RETURN(Value remainder,
                   TemplateArithmetic(TemplateBinaryOp::kModulo, call.input(), Value::Int(2), call.budget()));
  ASSIGN_OR_RETURN(bool odd, TemplateEqual(remainder, Value::Int(1), call.budget()));
  return Value::Bool(odd);
}

template <const TemplateFunction* (*find)(absl::string_view)>
absl::StatusOr<Value> Exists(const Call& call) {
  return Value::Bool(call.input().IsText() && find(call.input().bytes()) != nullptr);
}

const std::vector<TemplateFunction>& Tests() {
  using Op = TemplateCompareOp;
  static const auto* tests = new std::vector<TemplateFunction>{
      {"defined", {}, 0, Kindly<IsDefined>},
      {"undefined", {}, 0, Kindly<IsUndefined>},
      {"none", {}, 0, Kindly<IsNone>},
      {"true", {}, 0, Kindly<IsTrue>},
      {"false", {}, 0, Kindly<IsFalse>},
      {"boolean", {}, 0, Kindly<IsBool>},
      {"integer", {}, 0, Kindly<IsInteger>},
      {"float", {}, 0, Kindly<IsFloat>},
      {"number", {}, 0, Kindly<IsNumber>},
      {"string", {}, 0, Kindly<IsText>},
      {"mapping", {}, 0, Kindly<IsMapping>},
      {"iterable", {}, 0, Kindly<IsIterable>},
      {"sequence", {}, 0, Kindly<IsSequence>},
      {"callable", {}, 0, Kindly<IsCallable>},
      {"sameas", {"other"}, 1, SameAs},
      {"even", {}, 0, IsEven},
      {"odd", {}, 0, IsOdd},
      {"divisibleby", {"num"}, 1, DivisibleBy},
      {"in", {"seq"}, 1, Compare<Op::kIn>},
      {"filter", {}, 0, Exists<FindTemplateFilter>},
      {"test", {}, 0, Exists<FindTemplateTest>},
      {"eq", {"other"}, 1, Compare<Op::kEqual>},
      {"==", {"other"}, 1, Compare<Op::kEqual>},
      {"equalto", {"other"}, 1, Compare<Op::kEqual>},
      {"ne", {"other"}, 1, Compare<Op::kNotEqual>},
      {"!=", {"other"}, 1, Compare<Op::kNotEqual>},
      {"lt", {"other"}, 1, Compare<Op::kLess>},
      {"<", {"other"}, 1, Compare<Op::kLess>},
      {"lessthan", {"other"}, 1, Compare<Op::kLess>},
      {"le", {"other"}, 1, Compare<Op::kLessEqual>},
      {"<=", {"other"}, 1, Compare<Op::kLessEqual>},
      {"gt", {"other"}, 1, Compare<Op::kGreater>},
      {">", {"other"}, 1, Compare<Op::kGreater>},
      {"greaterthan", {"other"}, 1, Compare<Op::kGreater>},
      {"ge", {"other"}, 1, Compare<Op::kGreaterEqual>},
      {">=", {"other"}, 1, Compare<Op::kGreaterEqual>},
  };
  return *tests;
}

}  // namespace

const TemplateFunction* FindTemplateTest(absl::string_view name) { return FindTemplateFunction(Tests(), name); }

}  // namespace weft
