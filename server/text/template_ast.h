// The tree of a parsed template. Built by the parser, immutable afterwards, shared by concurrent renders. Its depth is
// bounded by the parser, which bounds every recursion over it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "server/text/template_function.h"
#include "server/text/template_operators.h"
#include "server/text/template_value.h"

namespace weft {

struct TemplateExpr;
using TemplateExprPtr = std::unique_ptr<TemplateExpr>;

struct TemplateArgumentExprs {
  std::vector<TemplateExprPtr> positional;
  std::vector<std::pair<std::string, TemplateExprPtr>> named;
};

struct ConstantExpr {
  TemplateValue value;
};
struct NameExpr {
  std::string name;
};
struct SequenceExpr {
  bool is_tuple;
  std::vector<TemplateExprPtr> items;
};
struct DictExpr {
  std::vector<std::pair<TemplateExprPtr, TemplateExprPtr>> items;
};
struct AttributeExpr {
  TemplateExprPtr object;
  std::string name;
};
struct ItemExpr {
  TemplateExprPtr object;
  TemplateExprPtr key;
};
struct SliceExpr {
  TemplateExprPtr object;
  TemplateExprPtr start, stop, step;  // null: left out
};
struct CallExpr {
  TemplateExprPtr callee;
  TemplateArgumentExprs arguments;
};
// operand | filter(arguments), or operand is test(arguments).
struct ApplyExpr {
  TemplateExprPtr operand;  // null at the start of a block's filters: the block's text
  const TemplateFunction* function;
  TemplateArgumentExprs arguments;
};
struct NegateExpr {
  TemplateExprPtr operand;
  bool is_minus;
};
struct NotExpr {
  TemplateExprPtr operand;
};
// first op operand op operand ..., applied from the left: flat, so that long chains don't nest.
struct ArithmeticExpr {
  TemplateExprPtr first;
  std::vector<std::pair<TemplateBinaryOp, TemplateExprPtr>> rest;
};
struct ConcatExpr {
  std::vector<TemplateExprPtr> operands;
};
struct CompareExpr {
  TemplateExprPtr first;
  std::vector<std::pair<TemplateCompareOp, TemplateExprPtr>> rest;
};
struct LogicExpr {
  bool is_and;
  std::vector<TemplateExprPtr> operands;
};
struct ConditionalExpr {
  TemplateExprPtr condition;
  TemplateExprPtr then;
  TemplateExprPtr otherwise;  // null: undefined
};

struct TemplateExpr {
  std::variant<ConstantExpr, NameExpr, SequenceExpr, DictExpr, AttributeExpr, ItemExpr, SliceExpr, CallExpr, ApplyExpr,
               NegateExpr, NotExpr, ArithmeticExpr, ConcatExpr, CompareExpr, LogicExpr, ConditionalExpr>
      node;
  int depth;  // 1 for a leaf
};

// What `set` and `for` assign to: a name, or an attribute of a namespace, or several of them.
struct TemplateTarget {
  std::string name;
  std::string attribute;              // empty: the name itself
  std::vector<TemplateTarget> parts;  // not empty: unpacks
};

struct TemplateStatement;
using TemplateBody = std::vector<TemplateStatement>;

struct TextStatement {
  TemplateValue text;
};
struct OutputStatement {
  TemplateExprPtr value;
};
struct IfStatement {
  struct Branch {
    TemplateExprPtr condition;
    TemplateBody body;
  };
  std::vector<Branch> branches;
  TemplateBody otherwise;
};
struct ForStatement {
  TemplateTarget target;
  TemplateExprPtr items;
  TemplateExprPtr filter;  // null: none
  TemplateBody body;
  TemplateBody otherwise;
};
struct SetStatement {
  TemplateTarget target;
  TemplateExprPtr value;
};
struct SetBlockStatement {
  TemplateTarget target;
  TemplateExprPtr filters;  // null: none; else innermost operand is null and stands for the block's text
  TemplateBody body;
};
struct FilterBlockStatement {
  TemplateExprPtr filters;
  TemplateBody body;
};
struct MacroStatement {
  struct Parameter {
    std::string name;
    TemplateExprPtr fallback;  // null: none
  };
  std::string name;
  std::vector<Parameter> parameters;
  TemplateBody body;
};
struct WithStatement {
  std::vector<std::pair<TemplateTarget, TemplateExprPtr>> assignments;
  TemplateBody body;
};
// A scope of its own without any other effect: {% generation %}, which only marks text for training.
struct ScopeStatement {
  TemplateBody body;
};
struct BreakStatement {};
struct ContinueStatement {};

struct TemplateStatement {
  std::variant<TextStatement, OutputStatement, IfStatement, ForStatement, SetStatement, SetBlockStatement,
               FilterBlockStatement, MacroStatement, WithStatement, ScopeStatement, BreakStatement, ContinueStatement>
      node;
  int line;
};

}  // namespace weft
