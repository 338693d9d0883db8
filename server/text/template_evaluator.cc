// Expressions of TemplateInterpreter.
#include <algorithm>

#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_interpreter.h"
#include "server/text/template_methods.h"
#include "server/text/template_operators.h"
#include "server/text/template_print.h"

namespace weft {
namespace {

// namespace(): known by its address, called by CallValue.
const TemplateFunction& NamespaceFunction() {
  static const auto* function = new TemplateFunction{"namespace", {}, 0, nullptr, /*variadic=*/true};
  return *function;
}

}  // namespace

absl::StatusOr<TemplateValue> TemplateInterpreter::Eval(const TemplateExpr& expr) {
  Frame frame(&frames_);
  if (frames_ > max_frames_) return TemplateOverBudget("nested too deep");
  RETURN_IF_ERROR(budget_.Spend(1));
  ASSIGN_OR_RETURN(Value value, std::visit([this](const auto& node) { return EvalNode(node); }, expr.node));
  if (value.depth() > budget_.max_depth()) return TemplateOverBudget("values nested too deep");
  return value;
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalOr(const TemplateExprPtr& expr, Value when_null) {
  return expr ? Eval(*expr) : absl::StatusOr<Value>(std::move(when_null));
}

absl::StatusOr<bool> TemplateInterpreter::EvalTruth(const TemplateExpr& expr) {
  ASSIGN_OR_RETURN(Value value, Eval(expr));
  return TemplateTruth(value);
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const ConstantExpr& node) { return node.value; }

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const NameExpr& node) {
  if (const Value* found = scope_->Find(node.name)) return *found;
  if (node.name == "namespace") return Value::Function(&NamespaceFunction());
  const TemplateFunction* function = FindTemplateGlobal(node.name);
  return function ? Value::Function(function) : Value();
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const SequenceExpr& node) {
  std::vector<Value> items;
  for (const TemplateExprPtr& expr : node.items) {
    ASSIGN_OR_RETURN(Value item, Eval(*expr));
    items.push_back(std::move(item));
  }
  return node.is_tuple ? Value::Tuple(std::move(items)) : Value::List(std::move(items));
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const DictExpr& node) {
  TemplateDict dict;
  for (const auto& [key_expr, value_expr] : node.items) {
    ASSIGN_OR_RETURN(Value key, Eval(*key_expr));
    ASSIGN_OR_RETURN(Value value, Eval(*value_expr));
    if (!dict.Set(std::move(key), std::move(value))) return TemplateFailed("a value that can't be a key");
  }
  return Value::Dict(std::move(dict));
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const AttributeExpr& node) {
  ASSIGN_OR_RETURN(Value object, Eval(*node.object));
  return TemplateGetAttribute(object, node.name);
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const ItemExpr& node) {
  ASSIGN_OR_RETURN(Value object, Eval(*node.object));
  ASSIGN_OR_RETURN(Value key, Eval(*node.key));
  if (object.IsText()) RETURN_IF_ERROR(budget_.SpendChars(object.AsText().size()));
  return TemplateGetItem(object, key);
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const SliceExpr& node) {
  ASSIGN_OR_RETURN(Value object, Eval(*node.object));
  TemplateSliceBounds bounds;
  ASSIGN_OR_RETURN(bounds.start, EvalOr(node.start, Value::None()));
  ASSIGN_OR_RETURN(bounds.stop, EvalOr(node.stop, Value::None()));
  ASSIGN_OR_RETURN(bounds.step, EvalOr(node.step, Value::None()));
  return TemplateSlice(object, bounds, budget_);
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const ApplyExpr& node) {
  ASSIGN_OR_RETURN(Value operand, EvalOr(node.operand, block_text_));
  ASSIGN_OR_RETURN(TemplateArguments arguments, EvalArguments(node.arguments));
  return CallTemplateFunction(*node.function, TemplateCall(std::move(operand), arguments, budget_, now_));
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const NegateExpr& node) {
  ASSIGN_OR_RETURN(Value operand, Eval(*node.operand));
  if (!operand.IsNumber()) return TemplateFailed("a sign before something that is no number");
  if (operand.IsFloat()) return Value::Float(node.is_minus ? -operand.ToDouble() : operand.ToDouble());
  TemplateBinaryOp op = node.is_minus ? TemplateBinaryOp::kSubtract : TemplateBinaryOp::kAdd;
  return TemplateArithmetic(op, Value::Int(0), operand, budget_);
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const NotExpr& node) {
  ASSIGN_OR_RETURN(bool holds, EvalTruth(*node.operand));
  return Value::Bool(!holds);
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const ArithmeticExpr& node) {
  ASSIGN_OR_RETURN(Value result, Eval(*node.first));
  for (const auto& [op, expr] : node.rest) {
    ASSIGN_OR_RETURN(Value operand, Eval(*expr));
    ASSIGN_OR_RETURN(result, TemplateArithmetic(op, result, operand, budget_));
  }
  return result;
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const ConcatExpr& node) {
  TemplateText result;
  for (const TemplateExprPtr& expr : node.operands) {
    ASSIGN_OR_RETURN(Value operand, Eval(*expr));
    ASSIGN_OR_RETURN(TemplateText text, TemplateStr(operand, budget_));
    RETURN_IF_ERROR(budget_.SpendGrowth(result.size(), text.size()));
    result.Append(text);
  }
  return Value::Text(std::move(result));
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const CompareExpr& node) {
  ASSIGN_OR_RETURN(Value left, Eval(*node.first));
  for (const auto& [op, expr] : node.rest) {
    ASSIGN_OR_RETURN(Value right, Eval(*expr));
    ASSIGN_OR_RETURN(bool holds, TemplateCompare(op, left, right, budget_));
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const LogicExpr& node) {
  Value value;
  for (const TemplateExprPtr& operand : node.operands) {
    ASSIGN_OR_RETURN(value, Eval(*operand));
    if (TemplateTruth(value) != node.is_and) break;
  }
  return value;
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const ConditionalExpr& node) {
  ASSIGN_OR_RETURN(bool holds, EvalTruth(*node.condition));
  return holds ? Eval(*node.then) : EvalOr(node.otherwise, Value());
}

absl::StatusOr<TemplateArguments> TemplateInterpreter::EvalArguments(const TemplateArgumentExprs& arguments) {
  TemplateArguments result;
  for (const TemplateExprPtr& expr : arguments.positional) {
    ASSIGN_OR_RETURN(Value value, Eval(*expr));
    result.positional.push_back(std::move(value));
  }
  for (const auto& [name, expr] : arguments.named) {
    ASSIGN_OR_RETURN(Value value, Eval(*expr));
    result.named.emplace_back(name, std::move(value));
  }
  return result;
}

absl::StatusOr<TemplateValue> TemplateInterpreter::EvalNode(const CallExpr& node) {
  if (const auto* attribute = std::get_if<AttributeExpr>(&node.callee->node)) {
    return CallMethod(*attribute, node.arguments);
  }
  ASSIGN_OR_RETURN(Value callee, Eval(*node.callee));
  ASSIGN_OR_RETURN(TemplateArguments arguments, EvalArguments(node.arguments));
  return CallValue(callee, arguments);
}

absl::StatusOr<TemplateValue> TemplateInterpreter::CallMethod(const AttributeExpr& callee,
                                                              const TemplateArgumentExprs& arguments) {
  ASSIGN_OR_RETURN(Value object, Eval(*callee.object));
  ASSIGN_OR_RETURN(Value attribute, TemplateGetAttribute(object, callee.name));
  ASSIGN_OR_RETURN(TemplateArguments evaluated, EvalArguments(arguments));
  const TemplateFunction* method = FindTemplateMethod(object, callee.name);
  if (!method) return CallValue(attribute, evaluated);
  return CallTemplateFunction(*method, TemplateCall(std::move(object), evaluated, budget_, now_));
}

absl::StatusOr<TemplateValue> TemplateInterpreter::CallValue(const Value& callee, const TemplateArguments& arguments) {
  if (const TemplateMacro* macro = callee.AsMacro()) return CallMacro(*macro, arguments);
  const TemplateFunction* function = callee.AsFunction();
  if (!function) return TemplateFailed("a call of something that can't be called");
  if (function == &NamespaceFunction()) return MakeNamespace(arguments);
  // A method that was stored away has lost its object.
  if (function != FindTemplateGlobal(function->name)) return TemplateFailed("a method called without its object");
  return CallTemplateFunction(*function, TemplateCall(Value(), arguments, budget_, now_));
}

absl::StatusOr<TemplateValue> TemplateInterpreter::CallMacro(const TemplateMacro& macro,
                                                             const TemplateArguments& arguments) {
  Frame call(&calls_);
  if (calls_ > budget_.max_depth()) return TemplateOverBudget("macro calls nested too deep");
  const std::vector<MacroStatement::Parameter>& parameters = macro.definition->parameters;
  if (arguments.positional.size() > parameters.size()) return TemplateFailed("too many arguments for a macro");
  auto scope = std::make_shared<TemplateScope>();
  scope->parent = macro.scope;
  std::vector<bool> given(parameters.size(), false);
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    scope->Set(parameters[i].name, arguments.positional[i]);
    given[i] = true;
  }
  for (const auto& [name, value] : arguments.named) {
    auto it = std::find_if(parameters.begin(), parameters.end(), [&n = name](const auto& p) { return p.name == n; });
    size_t i = static_cast<size_t>(it - parameters.begin());
    if (it == parameters.end() || given[i]) return TemplateFailed("a macro argument unknown or given twice");
    scope->Set(it->name, value);
    given[i] = true;
  }
  std::shared_ptr<TemplateScope> outer = std::exchange(scope_, scope);
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (given[i]) continue;
    ASSIGN_OR_RETURN(Value fallback, EvalOr(parameters[i].fallback, Value()));
    scope->Set(parameters[i].name, std::move(fallback));
  }
  absl::StatusOr<Value> text = Capture(macro.definition->body, scope);
  scope_ = std::move(outer);
  return text;
}

absl::StatusOr<TemplateValue> TemplateInterpreter::MakeNamespace(const TemplateArguments& arguments) {
  if (arguments.positional.size() > 1) return TemplateFailed("namespace takes one mapping");
  auto space = std::make_unique<TemplateNamespace>();
  if (!arguments.positional.empty()) {
    const TemplateDict* source = arguments.positional[0].AsDict();
    if (!source) return TemplateFailed("namespace needs a mapping");
    RETURN_IF_ERROR(budget_.Spend(static_cast<int64_t>(source->items().size())));
    for (const TemplateDict::Item& item : source->items()) {
      if (!item.key.IsText()) return TemplateFailed("a namespace attribute that is no text");
      space->Set(item.key.bytes(), item.value);
    }
  }
  for (const auto& [name, value] : arguments.named) space->Set(name, value);
  namespaces_.push_back(std::move(space));
  return Value::Namespace(namespaces_.back().get());
}

}  // namespace weft
