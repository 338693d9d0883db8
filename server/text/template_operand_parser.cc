// Operands: constants, names, lists, dicts, and what follows them: attributes, items, calls with their arguments.
#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/text/template_depth.h"
#include "server/text/template_errors.h"
#include "server/text/template_methods.h"
#include "server/text/template_parser.h"

namespace weft {

absl::StatusOr<TemplateExprPtr> TemplateParser::ParsePrimary() {
  if (Current().kind == Kind::kName) return ParseName();
  if (Current().kind == Kind::kInteger || Current().kind == Kind::kFloat) return ParseNumber();
  if (Current().kind == Kind::kString) {
    std::string text;
    for (; Current().kind == Kind::kString; Advance()) text += Current().value;
    return Make(ConstantExpr{TemplateValue::Literal(text)}, 0);
  }
  if (AtOperator("[")) return ParseList();
  if (AtOperator("{")) return ParseDict();
  RETURN_IF_ERROR(ExpectOperator("("));
  ASSIGN_OR_RETURN(Expr inner, ParseTuple(/*with_conditional=*/true, /*in_parentheses=*/true));
  RETURN_IF_ERROR(ExpectOperator(")"));
  return inner;
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseName() {
  std::string name = Current().value;
  if (macro_depth_ > 0 && (name == "caller" || name == "varargs" || name == "kwargs")) {
    return TemplateUnsupported(line(), absl::StrCat("'", name, "' in a macro"));
  }
  Advance();
  if (name == "true" || name == "True") return Make(ConstantExpr{TemplateValue::Bool(true)}, 0);
  if (name == "false" || name == "False") return Make(ConstantExpr{TemplateValue::Bool(false)}, 0);
  if (name == "none" || name == "None") return Make(ConstantExpr{TemplateValue::None()}, 0);
  return Make(NameExpr{std::move(name)}, 0);
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseNumber() {
  int64_t whole = 0;
  double real = 0;
  bool is_float = Current().kind == Kind::kFloat;
  bool ok = is_float ? absl::SimpleAtod(Current().value, &real) : absl::SimpleAtoi(Current().value, &whole);
  if (!ok) return Unexpected();
  Advance();
  return Make(ConstantExpr{is_float ? TemplateValue::Float(real) : TemplateValue::Int(whole)}, 0);
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseList() {
  Advance();
  std::vector<Expr> items;
  while (!AtOperator("]")) {
    if (!items.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    if (AtOperator("]")) break;
    ASSIGN_OR_RETURN(Expr item, ParseExpression());
    items.push_back(std::move(item));
  }
  Advance();
  int depth = DepthOf(items);
  return Make(SequenceExpr{/*is_tuple=*/false, std::move(items)}, depth);
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseDict() {
  Advance();
  DictExpr dict;
  int depth = 0;
  while (!AtOperator("}")) {
    if (!dict.items.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    if (AtOperator("}")) break;
    ASSIGN_OR_RETURN(Expr key, ParseExpression());
    RETURN_IF_ERROR(ExpectOperator(":"));
    ASSIGN_OR_RETURN(Expr value, ParseExpression());
    depth = std::max({depth, DepthOf(key), DepthOf(value)});
    dict.items.emplace_back(std::move(key), std::move(value));
  }
  Advance();
  return Make(std::move(dict), depth);
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParsePostfix(Expr expr) {
  while (true) {
    if (TakeOperator(".")) {
      ASSIGN_OR_RETURN(expr, ParseDot(std::move(expr)));
    } else if (TakeOperator("[")) {
      ASSIGN_OR_RETURN(expr, ParseSubscript(std::move(expr)));
    } else if (AtOperator("(")) {
      ASSIGN_OR_RETURN(expr, ParseCall(std::move(expr)));
    } else {
      return expr;
    }
  }
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseDot(Expr object) {
  int depth = DepthOf(object);
  if (Current().kind == Kind::kInteger) {
    ASSIGN_OR_RETURN(Expr index, ParseNumber());
    return Make(ItemExpr{std::move(object), std::move(index)}, depth);
  }
  ASSIGN_OR_RETURN(std::string name, ExpectName());
  return Make(AttributeExpr{std::move(object), std::move(name)}, depth);
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseSubscript(Expr object) {
  Expr bounds[3];
  int num_colons = 0;
  while (!AtOperator("]")) {
    if (TakeOperator(":")) {
      if (++num_colons > 2) return Unexpected();
    } else if (bounds[num_colons]) {
      return Unexpected();
    } else {
      ASSIGN_OR_RETURN(bounds[num_colons], ParseExpression());
    }
  }
  int depth = std::max({DepthOf(object), DepthOf(bounds[0]), DepthOf(bounds[1]), DepthOf(bounds[2])});
  if (num_colons == 0 && !bounds[0]) return Unexpected();
  Advance();
  if (num_colons == 0) return Make(ItemExpr{std::move(object), std::move(bounds[0])}, depth);
  return Make(SliceExpr{std::move(object), std::move(bounds[0]), std::move(bounds[1]), std::move(bounds[2])}, depth);
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseCall(Expr callee) {
  if (const auto* name = std::get_if<NameExpr>(&callee->node)) called_.emplace_back(name->name, line());
  if (const auto* attribute = std::get_if<AttributeExpr>(&callee->node)) {
    if (!IsTemplateMethod(attribute->name)) {
      return TemplateUnsupported(line(), absl::StrCat("no method '", attribute->name, "'"));
    }
  }
  ASSIGN_OR_RETURN(TemplateArgumentExprs arguments, ParseArguments());
  int depth = std::max(DepthOf(callee), DepthOf(arguments));
  return Make(CallExpr{std::move(callee), std::move(arguments)}, depth);
}

absl::StatusOr<TemplateArgumentExprs> TemplateParser::ParseArguments() {
  RETURN_IF_ERROR(ExpectOperator("("));
  TemplateArgumentExprs arguments;
  while (!AtOperator(")")) {
    if (!arguments.positional.empty() || !arguments.named.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    if (AtOperator(")")) break;
    if (AtOperator("*") || AtOperator("**")) return TemplateUnsupported(line(), "unpacking in a call");
    bool is_named = Current().kind == Kind::kName && Next().kind == Kind::kOperator && Next().value == "=";
    if (!is_named && !arguments.named.empty()) return TemplateInvalid(line(), "an argument after a named one");
    if (is_named) {
      std::string name = Current().value;
      Advance();
      Advance();
      ASSIGN_OR_RETURN(Expr value, ParseExpression());
      arguments.named.emplace_back(std::move(name), std::move(value));
    } else {
      ASSIGN_OR_RETURN(Expr value, ParseExpression());
      arguments.positional.push_back(std::move(value));
    }
  }
  Advance();
  return arguments;
}

}  // namespace weft
