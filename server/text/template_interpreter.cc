// Statements; expressions are in template_evaluator.cc.
#include "server/text/template_interpreter.h"

#include <algorithm>

#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_operators.h"
#include "server/text/template_print.h"

namespace weft {
namespace {

// How much C++ recursion one level of the depth limit stands for: a macro call passes a few statements and expressions.
constexpr int kFramesPerLevel = 12;

}  // namespace

void TemplateScope::Set(absl::string_view name, TemplateValue value) {
  for (auto& [known, held] : variables) {
    if (known != name) continue;
    held = std::move(value);
    return;
  }
  variables.emplace_back(name, std::move(value));
}

const TemplateValue* TemplateScope::Find(absl::string_view name) const {
  for (const TemplateScope* scope = this; scope; scope = scope->parent.get()) {
    for (const auto& [known, value] : scope->variables) {
      if (known == name) return &value;
    }
  }
  return nullptr;
}

TemplateInterpreter::TemplateInterpreter(TemplateBudget& budget, absl::Time now, TemplateScope inputs)
    : budget_(budget),
      now_(now),
      max_frames_(budget.max_depth() * kFramesPerLevel),
      scope_(std::make_shared<TemplateScope>(std::move(inputs))) {}

absl::StatusOr<TemplateText> TemplateInterpreter::Run(const TemplateBody& body) {
  ASSIGN_OR_RETURN(Value text, Capture(body, NewScope()));
  return text.AsText();
}

std::shared_ptr<TemplateScope> TemplateInterpreter::NewScope() const {
  auto scope = std::make_shared<TemplateScope>();
  scope->parent = scope_;
  return scope;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::RunBody(const TemplateBody& body) {
  Frame frame(&frames_);
  if (frames_ > max_frames_) return TemplateOverBudget("nested too deep");
  for (const TemplateStatement& statement : body) {
    RETURN_IF_ERROR(budget_.Spend(1));
    line_ = statement.line;
    ASSIGN_OR_RETURN(Flow flow, std::visit([this](const auto& node) { return Execute(node); }, statement.node));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::RunInScope(const TemplateBody& body,
                                                                          std::shared_ptr<TemplateScope> scope) {
  std::shared_ptr<TemplateScope> outer = std::exchange(scope_, std::move(scope));
  absl::StatusOr<Flow> flow = RunBody(body);
  scope_ = std::move(outer);
  return flow;
}

// Runs `body` with its output going to a text of its own.
absl::StatusOr<TemplateValue> TemplateInterpreter::Capture(const TemplateBody& body,
                                                           std::shared_ptr<TemplateScope> scope) {
  TemplateText text;
  TemplateText* outer = std::exchange(out_, &text);
  absl::StatusOr<Flow> flow = RunInScope(body, std::move(scope));
  out_ = outer;
  RETURN_IF_ERROR(flow.status());
  return Value::Text(std::move(text));
}

absl::Status TemplateInterpreter::Emit(const TemplateText& text) {
  RETURN_IF_ERROR(budget_.SpendGrowth(out_->size(), text.size()));
  out_->Append(text);
  return absl::OkStatus();
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const TextStatement& statement) {
  RETURN_IF_ERROR(Emit(statement.text.AsText()));
  return Flow::kNext;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const OutputStatement& statement) {
  ASSIGN_OR_RETURN(Value value, Eval(*statement.value));
  if (value.IsText()) {
    RETURN_IF_ERROR(Emit(value.AsText()));
    return Flow::kNext;
  }
  ASSIGN_OR_RETURN(TemplateText text, TemplateStr(value, budget_));
  RETURN_IF_ERROR(Emit(text));
  return Flow::kNext;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const IfStatement& statement) {
  for (const IfStatement::Branch& branch : statement.branches) {
    ASSIGN_OR_RETURN(bool holds, EvalTruth(*branch.condition));
    if (holds) return RunBody(branch.body);
  }
  return RunBody(statement.otherwise);
}

// The items that pass the loop's filter. All are judged before the body runs; Jinja judges each when its turn comes,
// which differs only if the body changes a namespace that the filter reads.
absl::StatusOr<std::vector<TemplateValue>> TemplateInterpreter::LoopItems(const ForStatement& statement) {
  ASSIGN_OR_RETURN(Value source, Eval(*statement.items));
  ASSIGN_OR_RETURN(std::vector<Value> items, TemplateIterate(source, budget_));
  if (!statement.filter) return items;
  std::vector<Value> kept;
  std::shared_ptr<TemplateScope> outer = scope_;
  for (Value& item : items) {
    scope_ = outer;
    scope_ = NewScope();
    RETURN_IF_ERROR(Assign(statement.target, item));
    ASSIGN_OR_RETURN(bool keep, EvalTruth(*statement.filter));
    if (keep) kept.push_back(std::move(item));
  }
  scope_ = std::move(outer);
  return kept;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const ForStatement& statement) {
  ASSIGN_OR_RETURN(std::vector<Value> values, LoopItems(statement));
  if (values.empty()) return RunInScope(statement.otherwise, NewScope());
  auto items = std::make_shared<const TemplateSequence>(TemplateSequence::Kind::kList, std::move(values));
  std::shared_ptr<TemplateScope> outer = scope_;
  for (size_t i = 0; i < items->items.size(); ++i) {
    RETURN_IF_ERROR(budget_.Spend(1));
    scope_ = outer;
    scope_ = NewScope();
    scope_->Set("loop", Value::Loop(std::make_shared<const TemplateLoop>(TemplateLoop{items, i})));
    RETURN_IF_ERROR(Assign(statement.target, items->items[i]));
    ASSIGN_OR_RETURN(Flow flow, RunBody(statement.body));
    if (flow == Flow::kBreak) break;
  }
  scope_ = std::move(outer);
  return Flow::kNext;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const SetStatement& statement) {
  ASSIGN_OR_RETURN(Value value, Eval(*statement.value));
  RETURN_IF_ERROR(Assign(statement.target, value));
  return Flow::kNext;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const SetBlockStatement& statement) {
  ASSIGN_OR_RETURN(Value value, Capture(statement.body, NewScope()));
  if (statement.filters) {
    block_text_ = std::move(value);
    ASSIGN_OR_RETURN(value, Eval(*statement.filters));
  }
  RETURN_IF_ERROR(Assign(statement.target, value));
  return Flow::kNext;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const FilterBlockStatement& statement) {
  ASSIGN_OR_RETURN(block_text_, Capture(statement.body, NewScope()));
  ASSIGN_OR_RETURN(Value value, Eval(*statement.filters));
  ASSIGN_OR_RETURN(TemplateText text, TemplateStr(value, budget_));
  RETURN_IF_ERROR(Emit(text));
  return Flow::kNext;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const MacroStatement& statement) {
  macros_.push_back(std::make_unique<TemplateMacro>(TemplateMacro{&statement, scope_}));
  scope_->Set(statement.name, Value::Macro(macros_.back().get()));
  return Flow::kNext;
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const WithStatement& statement) {
  std::shared_ptr<TemplateScope> inner = NewScope();
  for (const auto& [target, expr] : statement.assignments) {
    ASSIGN_OR_RETURN(Value value, Eval(*expr));  // in the outer scope, as in Jinja
    std::shared_ptr<TemplateScope> outer = std::exchange(scope_, inner);
    absl::Status assigned = Assign(target, value);
    scope_ = std::move(outer);
    RETURN_IF_ERROR(assigned);
  }
  return RunInScope(statement.body, std::move(inner));
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const ScopeStatement& statement) {
  return RunInScope(statement.body, NewScope());
}

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const BreakStatement&) { return Flow::kBreak; }

absl::StatusOr<TemplateInterpreter::Flow> TemplateInterpreter::Execute(const ContinueStatement&) {
  return Flow::kContinue;
}

absl::Status TemplateInterpreter::Assign(const TemplateTarget& target, const Value& value) {
  if (!target.parts.empty()) {
    ASSIGN_OR_RETURN(std::vector<Value> values, TemplateIterate(value, budget_));
    if (values.size() != target.parts.size()) return TemplateFailed("unpacking into another number of names");
    for (size_t i = 0; i < values.size(); ++i) RETURN_IF_ERROR(Assign(target.parts[i], values[i]));
    return absl::OkStatus();
  }
  if (target.attribute.empty()) {
    scope_->Set(target.name, value);
    return absl::OkStatus();
  }
  const Value* found = scope_->Find(target.name);
  TemplateNamespace* space = found ? found->AsNamespace() : nullptr;
  if (!space) return TemplateFailed("an attribute can be set on a namespace alone");
  space->Set(target.attribute, value);
  return absl::OkStatus();
}

}  // namespace weft
