// Operators, filters and tests: Jinja's precedence, with chains of operators kept flat. What they apply to is in
// template_operand_parser.cc.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/text/template_depth.h"
#include "server/text/template_errors.h"
#include "server/text/template_parser.h"

namespace weft {

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseTuple(bool with_conditional, bool in_parentheses) {
  std::vector<Expr> items;
  bool is_tuple = false;
  auto at_end = [this] {
    return Current().kind == Kind::kVariableEnd || Current().kind == Kind::kBlockEnd || AtOperator(")");
  };
  while (!at_end()) {
    ASSIGN_OR_RETURN(Expr item, with_conditional ? ParseExpression() : ParseLogic(/*is_and=*/false));
    items.push_back(std::move(item));
    if (!TakeOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && items.size() == 1) return std::move(items[0]);
  if (!is_tuple && !in_parentheses) return Unexpected();
  int depth = DepthOf(items);
  return Make(SequenceExpr{/*is_tuple=*/true, std::move(items)}, depth);
}

// a if b else c; the conditions bind tighter than the whole, and a missing else is undefined.
absl::StatusOr<TemplateExprPtr> TemplateParser::ParseExpression() {
  Level level(&depth_);
  RETURN_IF_ERROR(CheckDepth(depth_));
  ASSIGN_OR_RETURN(Expr expr, ParseLogic(/*is_and=*/false));
  while (TakeName("if")) {
    ASSIGN_OR_RETURN(Expr condition, ParseLogic(/*is_and=*/false));
    Expr otherwise;
    if (TakeName("else")) {
      ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    int depth = std::max({DepthOf(expr), DepthOf(condition), DepthOf(otherwise)});
    ASSIGN_OR_RETURN(expr, Make(ConditionalExpr{std::move(condition), std::move(expr), std::move(otherwise)}, depth));
  }
  return expr;
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseLogic(bool is_and) {
  std::vector<Expr> operands;
  do {
    ASSIGN_OR_RETURN(Expr operand, is_and ? ParseNot() : ParseLogic(/*is_and=*/true));
    operands.push_back(std::move(operand));
  } while (TakeName(is_and ? "and" : "or"));
  if (operands.size() == 1) return std::move(operands[0]);
  int depth = DepthOf(operands);
  return Make(LogicExpr{is_and, std::move(operands)}, depth);
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseNot() {
  if (!TakeName("not")) return ParseCompare();
  Level level(&depth_);
  RETURN_IF_ERROR(CheckDepth(depth_));
  ASSIGN_OR_RETURN(Expr operand, ParseNot());
  int depth = DepthOf(operand);
  return Make(NotExpr{std::move(operand)}, depth);
}

bool TemplateParser::TakeCompareOp(TemplateCompareOp* op) {
  using Op = TemplateCompareOp;
  static constexpr std::pair<const char*, Op> kOps[] = {{"==", Op::kEqual},  {"!=", Op::kNotEqual},
                                                        {"<", Op::kLess},    {"<=", Op::kLessEqual},
                                                        {">", Op::kGreater}, {">=", Op::kGreaterEqual}};
  for (const auto& [symbol, candidate] : kOps) {
    *op = candidate;
    if (TakeOperator(symbol)) return true;
  }
  *op = Op::kIn;
  if (TakeName("in")) return true;
  *op = Op::kNotIn;
  if (!AtName("not") || Next().kind != Kind::kName || Next().value != "in") return false;
  Advance();
  Advance();
  return true;
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseCompare() {
  ASSIGN_OR_RETURN(Expr first, ParseSum());
  CompareExpr compare;
  TemplateCompareOp op;
  while (TakeCompareOp(&op)) {
    ASSIGN_OR_RETURN(Expr operand, ParseSum());
    compare.rest.emplace_back(op, std::move(operand));
  }
  if (compare.rest.empty()) return first;
  int depth = std::max(DepthOf(first), DepthOf(compare.rest));
  compare.first = std::move(first);
  return Make(std::move(compare), depth);
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseSum() {
  ASSIGN_OR_RETURN(Expr first, ParseConcat());
  ArithmeticExpr sum;
  while (AtOperator("+") || AtOperator("-")) {
    TemplateBinaryOp op = AtOperator("+") ? TemplateBinaryOp::kAdd : TemplateBinaryOp::kSubtract;
    Advance();
    ASSIGN_OR_RETURN(Expr operand, ParseConcat());
    sum.rest.emplace_back(op, std::move(operand));
  }
  if (sum.rest.empty()) return first;
  int depth = std::max(DepthOf(first), DepthOf(sum.rest));
  sum.first = std::move(first);
  return Make(std::move(sum), depth);
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseConcat() {
  std::vector<Expr> operands;
  do {
    ASSIGN_OR_RETURN(Expr operand, ParseProduct());
    operands.push_back(std::move(operand));
  } while (TakeOperator("~"));
  if (operands.size() == 1) return std::move(operands[0]);
  int depth = DepthOf(operands);
  return Make(ConcatExpr{std::move(operands)}, depth);
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseProduct() {
  using Op = TemplateBinaryOp;
  static constexpr std::pair<const char*, Op> kOps[] = {
      {"*", Op::kMultiply}, {"/", Op::kDivide}, {"//", Op::kFloorDivide}, {"%", Op::kModulo}};
  ASSIGN_OR_RETURN(Expr first, ParsePower());
  ArithmeticExpr product;
  for (bool more = true; more;) {
    more = false;
    for (const auto& [symbol, op] : kOps) {
      if (!TakeOperator(symbol)) continue;
      ASSIGN_OR_RETURN(Expr operand, ParsePower());
      product.rest.emplace_back(op, std::move(operand));
      more = true;
    }
  }
  if (product.rest.empty()) return first;
  int depth = std::max(DepthOf(first), DepthOf(product.rest));
  product.first = std::move(first);
  return Make(std::move(product), depth);
}

// Unlike Python's, Jinja's ** applies from the left, and binds looser than a sign.
absl::StatusOr<TemplateExprPtr> TemplateParser::ParsePower() {
  ASSIGN_OR_RETURN(Expr first, ParseUnary(/*with_filters=*/true));
  ArithmeticExpr power;
  while (TakeOperator("**")) {
    ASSIGN_OR_RETURN(Expr operand, ParseUnary(/*with_filters=*/true));
    power.rest.emplace_back(TemplateBinaryOp::kPower, std::move(operand));
  }
  if (power.rest.empty()) return first;
  int depth = std::max(DepthOf(first), DepthOf(power.rest));
  power.first = std::move(first);
  return Make(std::move(power), depth);
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseUnary(bool with_filters) {
  Expr expr;
  if (AtOperator("-") || AtOperator("+")) {
    Level level(&depth_);
    RETURN_IF_ERROR(CheckDepth(depth_));
    bool is_minus = AtOperator("-");
    Advance();
    ASSIGN_OR_RETURN(Expr operand, ParseUnary(/*with_filters=*/false));
    int depth = DepthOf(operand);
    ASSIGN_OR_RETURN(expr, Make(NegateExpr{std::move(operand), is_minus}, depth));
  } else {
    ASSIGN_OR_RETURN(expr, ParsePrimary());
  }
  ASSIGN_OR_RETURN(expr, ParsePostfix(std::move(expr)));
  return with_filters ? ParseFiltersAndTests(std::move(expr)) : absl::StatusOr<Expr>(std::move(expr));
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseFiltersAndTests(Expr expr) {
  while (true) {
    if (TakeOperator("|")) {
      ASSIGN_OR_RETURN(expr, ParseFilter(std::move(expr)));
    } else if (TakeName("is")) {
      ASSIGN_OR_RETURN(expr, ParseTest(std::move(expr)));
    } else if (AtOperator("(")) {
      ASSIGN_OR_RETURN(expr, ParseCall(std::move(expr)));
    } else {
      return expr;
    }
  }
}

absl::StatusOr<std::string> TemplateParser::ParseDottedName() {
  ASSIGN_OR_RETURN(std::string name, ExpectName());
  while (TakeOperator(".")) {
    ASSIGN_OR_RETURN(std::string part, ExpectName());
    absl::StrAppend(&name, ".", part);
  }
  return name;
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseFilter(Expr operand) {
  int begin = line();
  ASSIGN_OR_RETURN(std::string name, ParseDottedName());
  const TemplateFunction* filter = FindTemplateFilter(name);
  if (!filter) return TemplateUnsupported(begin, absl::StrCat("no filter '", name, "'"));
  TemplateArgumentExprs arguments;
  if (AtOperator("(")) {
    ASSIGN_OR_RETURN(arguments, ParseArguments());
  }
  int depth = std::max(DepthOf(operand), DepthOf(arguments));
  return Make(ApplyExpr{std::move(operand), filter, std::move(arguments)}, depth);
}

// Whether a test's single argument follows without parentheses: "divisibleby 3".
bool TemplateParser::AtTestArgument() const {
  if (Current().kind == Kind::kName) return !AtName("else") && !AtName("or") && !AtName("and");
  return Current().kind == Kind::kString || Current().kind == Kind::kInteger || Current().kind == Kind::kFloat ||
         AtOperator("[") || AtOperator("{");
}

absl::StatusOr<TemplateExprPtr> TemplateParser::ParseTest(Expr operand) {
  int begin = line();
  bool negated = TakeName("not");
  ASSIGN_OR_RETURN(std::string name, ParseDottedName());
  const TemplateFunction* test = FindTemplateTest(name);
  if (!test) return TemplateUnsupported(begin, absl::StrCat("no test '", name, "'"));
  TemplateArgumentExprs arguments;
  if (AtOperator("(")) {
    ASSIGN_OR_RETURN(arguments, ParseArguments());
  } else if (AtTestArgument()) {
    if (AtName("is")) return TemplateInvalid(line(), "a test of a test");
    ASSIGN_OR_RETURN(Expr argument, ParsePrimary());
    ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    arguments.positional.push_back(std::move(argument));
  }
  int depth = std::max(DepthOf(operand), DepthOf(arguments));
  ASSIGN_OR_RETURN(Expr expr, Make(ApplyExpr{std::move(operand), test, std::move(arguments)}, depth));
  return negated ? Make(NotExpr{std::move(expr)}, depth + 1) : absl::StatusOr<Expr>(std::move(expr));
}

}  // namespace weft
