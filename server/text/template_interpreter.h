#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/text/template_ast.h"
#include "server/text/template_budget.h"
#include "server/text/template_value.h"

namespace weft {

// The variables of one block, and the way to those around it. Shared by the running block and the macros defined in it.
// The names are borrowed from the tree and from the inputs, which outlive the render.
struct TemplateScope {
  std::shared_ptr<TemplateScope> parent;  // null for the inputs
  std::vector<std::pair<absl::string_view, TemplateValue>> variables;

  void Set(absl::string_view name, TemplateValue value);
  const TemplateValue* Find(absl::string_view name) const;  // here or in a parent; null when nowhere
};

// A macro that was defined while rendering. Owned by the interpreter.
struct TemplateMacro {
  const MacroStatement* definition;
  std::shared_ptr<TemplateScope> scope;  // where it was defined: sees later assignments there, as in Jinja
};

// Runs one template once. Owns what the template makes and may change (namespaces, macros), so values that lead back to
// themselves are freed with it. One use, one thread.
class TemplateInterpreter {
 public:
  // `budget` must outlive the interpreter. `inputs` are the outermost variables.
  TemplateInterpreter(TemplateBudget& budget, absl::Time now, TemplateScope inputs);

  absl::StatusOr<TemplateText> Run(const TemplateBody& body);

  // The line of the statement that ran last: where Run() failed.
  int line() const { return line_; }

 private:
  using Value = TemplateValue;

  enum class Flow { kNext, kBreak, kContinue };

  // Counts one level of C++ recursion while it lives.
  class Frame {
   public:
    explicit Frame(int* depth) : depth_(depth) { ++*depth_; }
    ~Frame() { --*depth_; }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    int* depth_;
  };

  // Statements (template_interpreter.cc).
  absl::StatusOr<Flow> RunBody(const TemplateBody& body);
  absl::StatusOr<Flow> RunInScope(const TemplateBody& body, std::shared_ptr<TemplateScope> scope);
  absl::StatusOr<Value> Capture(const TemplateBody& body, std::shared_ptr<TemplateScope> scope);
  absl::StatusOr<Flow> Execute(const TextStatement& statement);
  absl::StatusOr<Flow> Execute(const OutputStatement& statement);
  absl::StatusOr<Flow> Execute(const IfStatement& statement);
  absl::StatusOr<Flow> Execute(const ForStatement& statement);
  absl::StatusOr<Flow> Execute(const SetStatement& statement);
  absl::StatusOr<Flow> Execute(const SetBlockStatement& statement);
  absl::StatusOr<Flow> Execute(const FilterBlockStatement& statement);
  absl::StatusOr<Flow> Execute(const MacroStatement& statement);
  absl::StatusOr<Flow> Execute(const WithStatement& statement);
  absl::StatusOr<Flow> Execute(const ScopeStatement& statement);
  absl::StatusOr<Flow> Execute(const BreakStatement& statement);
  absl::StatusOr<Flow> Execute(const ContinueStatement& statement);
  absl::StatusOr<std::vector<Value>> LoopItems(const ForStatement& statement);
  absl::Status Assign(const TemplateTarget& target, const Value& value);
  absl::Status Emit(const TemplateText& text);
  std::shared_ptr<TemplateScope> NewScope() const;

  // Expressions (template_evaluator.cc).
  absl::StatusOr<Value> Eval(const TemplateExpr& expr);
  absl::StatusOr<Value> EvalOr(const TemplateExprPtr& expr, Value when_null);
  absl::StatusOr<bool> EvalTruth(const TemplateExpr& expr);
  absl::StatusOr<Value> EvalNode(const ConstantExpr& node);
  absl::StatusOr<Value> EvalNode(const NameExpr& node);
  absl::StatusOr<Value> EvalNode(const SequenceExpr& node);
  absl::StatusOr<Value> EvalNode(const DictExpr& node);
  absl::StatusOr<Value> EvalNode(const AttributeExpr& node);
  absl::StatusOr<Value> EvalNode(const ItemExpr& node);
  absl::StatusOr<Value> EvalNode(const SliceExpr& node);
  absl::StatusOr<Value> EvalNode(const CallExpr& node);
  absl::StatusOr<Value> EvalNode(const ApplyExpr& node);
  absl::StatusOr<Value> EvalNode(const NegateExpr& node);
  absl::StatusOr<Value> EvalNode(const NotExpr& node);
  absl::StatusOr<Value> EvalNode(const ArithmeticExpr& node);
  absl::StatusOr<Value> EvalNode(const ConcatExpr& node);
  absl::StatusOr<Value> EvalNode(const CompareExpr& node);
  absl::StatusOr<Value> EvalNode(const LogicExpr& node);
  absl::StatusOr<Value> EvalNode(const ConditionalExpr& node);
  absl::StatusOr<TemplateArguments> EvalArguments(const TemplateArgumentExprs& arguments);
  absl::StatusOr<Value> CallMethod(const AttributeExpr& callee, const TemplateArgumentExprs& arguments);
  absl::StatusOr<Value> CallValue(const Value& callee, const TemplateArguments& arguments);
  absl::StatusOr<Value> CallMacro(const TemplateMacro& macro, const TemplateArguments& arguments);
  absl::StatusOr<Value> MakeNamespace(const TemplateArguments& arguments);

  TemplateBudget& budget_;
  absl::Time now_;
  int max_frames_;
  int frames_ = 0;  // C++ recursion now
  int calls_ = 0;   // macros that are running
  int line_ = 0;
  std::shared_ptr<TemplateScope> scope_;  // of the running block
  TemplateText* out_ = nullptr;           // where output goes: the result, or the text of a macro or block
  TemplateValue block_text_;              // the operand of a block's filters
  std::vector<std::unique_ptr<TemplateNamespace>> namespaces_;
  std::vector<std::unique_ptr<TemplateMacro>> macros_;
};

}  // namespace weft
