// Statements and the parser's plumbing; expressions are in template_expression_parser.cc and
// template_operand_parser.cc.
#include "server/text/template_parser.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/text/template_errors.h"

namespace weft {
namespace {

bool Contains(const std::vector<absl::string_view>& names, absl::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Valid Jinja that the subset leaves out, and what no template may do.
const std::vector<absl::string_view> kUnsupportedTags = {"block", "call",  "autoescape", "print",
                                                         "do",    "trans", "debug"};
const std::vector<absl::string_view> kForbiddenTags = {"include", "import", "from", "extends"};
const std::vector<absl::string_view> kConstants = {"true", "false", "none", "True", "False", "None"};

}  // namespace

absl::StatusOr<TemplateBody> TemplateParser::Parse() {
  ASSIGN_OR_RETURN(TemplateBody body, ParseBody({}));
  RETURN_IF_ERROR(CheckCalledNames());
  return body;
}

absl::Status TemplateParser::CheckCalledNames() const {
  for (const auto& [name, line] : called_) {
    if (!assigned_.contains(name) && name != "namespace" && !FindTemplateGlobal(name)) {
      return TemplateUnsupported(line, absl::StrCat("no function '", name, "'"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TemplateBody> TemplateParser::ParseBody(const Names& ends) {
  Level level(&depth_);
  RETURN_IF_ERROR(CheckDepth(depth_));
  TemplateBody body;
  while (Current().kind != Kind::kEnd) {
    if (Current().kind == Kind::kText) {
      body.push_back({TextStatement{TemplateValue::Literal(Current().value)}, line()});
      Advance();
    } else if (Current().kind == Kind::kVariableBegin) {
      ASSIGN_OR_RETURN(TemplateStatement output, ParseOutput());
      body.push_back(std::move(output));
    } else {
      Advance();  // {%
      if (Current().kind == Kind::kName && Contains(ends, Current().value)) return body;
      ASSIGN_OR_RETURN(TemplateStatement statement, ParseStatement());
      body.push_back(std::move(statement));
      RETURN_IF_ERROR(ExpectBlockEnd());
    }
  }
  if (!ends.empty()) return TemplateInvalid(line(), absl::StrCat("the template ends where '", ends.back(), "' is due"));
  return body;
}

absl::StatusOr<TemplateBody> TemplateParser::ParseBlock(const Names& ends) {
  TakeOperator(":");
  RETURN_IF_ERROR(ExpectBlockEnd());
  return ParseBody(ends);
}

absl::StatusOr<TemplateBody> TemplateParser::ParseWholeBlock(absl::string_view end) {
  ASSIGN_OR_RETURN(TemplateBody body, ParseBlock({end}));
  Advance();
  return body;
}

absl::StatusOr<TemplateStatement> TemplateParser::ParseOutput() {
  int begin = line();
  Advance();
  ASSIGN_OR_RETURN(Expr value, ParseTuple(/*with_conditional=*/true, /*in_parentheses=*/false));
  if (Current().kind != Kind::kVariableEnd) return Unexpected();
  Advance();
  return TemplateStatement{OutputStatement{std::move(value)}, begin};
}

absl::StatusOr<TemplateStatement> TemplateParser::ParseStatement() {
  int begin = line();
  ASSIGN_OR_RETURN(std::string name, ExpectName());
  if (name == "if") return ParseIf();
  if (name == "for") return ParseFor();
  if (name == "set") return ParseSet();
  if (name == "macro") return ParseMacro();
  if (name == "filter") return ParseFilterBlock();
  if (name == "with") return ParseWith();
  if (name == "break" || name == "continue") return ParseLoopControl(name == "break");
  if (name != "generation") return RefuseTag(name);
  int outer_loops = std::exchange(loop_depth_, 0);
  ASSIGN_OR_RETURN(TemplateBody body, ParseWholeBlock("endgeneration"));
  loop_depth_ = outer_loops;
  return TemplateStatement{ScopeStatement{std::move(body)}, begin};
}

absl::Status TemplateParser::RefuseTag(absl::string_view name) {
  if (Contains(kForbiddenTags, name)) {
    return TemplateInvalid(line(), absl::StrCat("'", name, "': a chat template stands alone"));
  }
  if (Contains(kUnsupportedTags, name)) return TemplateUnsupported(line(), absl::StrCat("tag '", name, "'"));
  return TemplateInvalid(line(), absl::StrCat("unknown tag '", name, "'"));
}

absl::StatusOr<TemplateStatement> TemplateParser::ParseIf() {
  int begin = line();
  IfStatement result;
  while (true) {
    ASSIGN_OR_RETURN(Expr condition, ParseTuple(/*with_conditional=*/false, /*in_parentheses=*/false));
    ASSIGN_OR_RETURN(TemplateBody body, ParseBlock({"elif", "else", "endif"}));
    result.branches.push_back({std::move(condition), std::move(body)});
    ASSIGN_OR_RETURN(std::string tag, ExpectName());
    if (tag == "elif") continue;
    if (tag == "else") {
      ASSIGN_OR_RETURN(result.otherwise, ParseWholeBlock("endif"));
    }
    return TemplateStatement{std::move(result), begin};
  }
}

absl::StatusOr<TemplateStatement> TemplateParser::ParseFor() {
  int begin = line();
  ForStatement result;
  ASSIGN_OR_RETURN(result.target, ParseTarget(/*allow_attribute=*/false));
  if (!TakeName("in")) return Unexpected();
  ASSIGN_OR_RETURN(result.items, ParseTuple(/*with_conditional=*/false, /*in_parentheses=*/false));
  if (TakeName("if")) {
    ASSIGN_OR_RETURN(result.filter, ParseExpression());
  }
  if (AtName("recursive")) return TemplateUnsupported(line(), "a recursive loop");
  ++loop_depth_;
  ASSIGN_OR_RETURN(result.body, ParseBlock({"else", "endfor"}));
  --loop_depth_;
  ASSIGN_OR_RETURN(std::string tag, ExpectName());
  if (tag == "else") {
    ASSIGN_OR_RETURN(result.otherwise, ParseWholeBlock("endfor"));
  }
  return TemplateStatement{std::move(result), begin};
}

absl::StatusOr<TemplateStatement> TemplateParser::ParseSet() {
  int begin = line();
  ASSIGN_OR_RETURN(TemplateTarget target, ParseTarget(/*allow_attribute=*/true));
  if (TakeOperator("=")) {
    ASSIGN_OR_RETURN(Expr value, ParseTuple(/*with_conditional=*/true, /*in_parentheses=*/false));
    return TemplateStatement{SetStatement{std::move(target), std::move(value)}, begin};
  }
  Expr filters;
  while (TakeOperator("|")) {
    ASSIGN_OR_RETURN(filters, ParseFilter(std::move(filters)));
  }
  int outer_loops = std::exchange(loop_depth_, 0);
  ASSIGN_OR_RETURN(TemplateBody body, ParseWholeBlock("endset"));
  loop_depth_ = outer_loops;
  return TemplateStatement{SetBlockStatement{std::move(target), std::move(filters), std::move(body)}, begin};
}

absl::StatusOr<TemplateStatement> TemplateParser::ParseMacro() {
  int begin = line();
  MacroStatement macro;
  ASSIGN_OR_RETURN(macro.name, ExpectName());
  assigned_.insert(macro.name);
  RETURN_IF_ERROR(ExpectOperator("("));
  while (!AtOperator(")")) {
    if (!macro.parameters.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    MacroStatement::Parameter parameter;
    ASSIGN_OR_RETURN(parameter.name, ExpectName());
    assigned_.insert(parameter.name);
    if (TakeOperator("=")) {
      ASSIGN_OR_RETURN(parameter.fallback, ParseExpression());
    } else if (!macro.parameters.empty() && macro.parameters.back().fallback) {
      return TemplateInvalid(line(), "a parameter without default after one with");
    }
    macro.parameters.push_back(std::move(parameter));
  }
  Advance();
  ++macro_depth_;
  int outer_loops = std::exchange(loop_depth_, 0);
  ASSIGN_OR_RETURN(macro.body, ParseWholeBlock("endmacro"));
  loop_depth_ = outer_loops;
  --macro_depth_;
  return TemplateStatement{std::move(macro), begin};
}

absl::StatusOr<TemplateStatement> TemplateParser::ParseFilterBlock() {
  int begin = line();
  ASSIGN_OR_RETURN(Expr filters, ParseFilter(nullptr));
  while (TakeOperator("|")) {
    ASSIGN_OR_RETURN(filters, ParseFilter(std::move(filters)));
  }
  int outer_loops = std::exchange(loop_depth_, 0);
  ASSIGN_OR_RETURN(TemplateBody body, ParseWholeBlock("endfilter"));
  loop_depth_ = outer_loops;
  return TemplateStatement{FilterBlockStatement{std::move(filters), std::move(body)}, begin};
}

absl::StatusOr<TemplateStatement> TemplateParser::ParseWith() {
  int begin = line();
  WithStatement with;
  while (Current().kind != Kind::kBlockEnd) {
    if (!with.assignments.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    ASSIGN_OR_RETURN(TemplateTarget target, ParseTargetPart(/*allow_attribute=*/false));
    RETURN_IF_ERROR(ExpectOperator("="));
    ASSIGN_OR_RETURN(Expr value, ParseExpression());
    with.assignments.emplace_back(std::move(target), std::move(value));
  }
  ASSIGN_OR_RETURN(with.body, ParseWholeBlock("endwith"));
  return TemplateStatement{std::move(with), begin};
}

absl::StatusOr<TemplateStatement> TemplateParser::ParseLoopControl(bool is_break) {
  if (loop_depth_ == 0) return TemplateInvalid(line(), "break or continue outside a loop");
  if (is_break) return TemplateStatement{BreakStatement{}, line()};
  return TemplateStatement{ContinueStatement{}, line()};
}

absl::StatusOr<TemplateTarget> TemplateParser::ParseTarget(bool allow_attribute) {
  ASSIGN_OR_RETURN(TemplateTarget first, ParseTargetPart(allow_attribute));
  if (!AtOperator(",")) return first;
  TemplateTarget several;
  several.parts.push_back(std::move(first));
  while (TakeOperator(",")) {
    if (Current().kind != Kind::kName && !AtOperator("(")) break;  // a trailing comma
    if (AtName("in")) break;
    ASSIGN_OR_RETURN(TemplateTarget part, ParseTargetPart(allow_attribute));
    several.parts.push_back(std::move(part));
  }
  return several;
}

absl::StatusOr<TemplateTarget> TemplateParser::ParseTargetPart(bool allow_attribute) {
  Level level(&depth_);
  RETURN_IF_ERROR(CheckDepth(depth_));
  if (TakeOperator("(")) {
    ASSIGN_OR_RETURN(TemplateTarget inner, ParseTarget(allow_attribute));
    RETURN_IF_ERROR(ExpectOperator(")"));
    return inner;
  }
  TemplateTarget target;
  ASSIGN_OR_RETURN(target.name, ExpectName());
  if (Contains(kConstants, target.name)) return TemplateInvalid(line(), "an assignment to a constant");
  if (allow_attribute && TakeOperator(".")) {
    ASSIGN_OR_RETURN(target.attribute, ExpectName());
    if (target.attribute[0] == '_') return TemplateInvalid(line(), "a namespace attribute that begins with '_'");
  } else {
    assigned_.insert(target.name);
  }
  return target;
}

bool TemplateParser::TakeOperator(absl::string_view op) {
  if (!AtOperator(op)) return false;
  Advance();
  return true;
}

bool TemplateParser::TakeName(absl::string_view name) {
  if (!AtName(name)) return false;
  Advance();
  return true;
}

absl::Status TemplateParser::ExpectOperator(absl::string_view op) {
  return TakeOperator(op) ? absl::OkStatus() : Unexpected();
}

absl::Status TemplateParser::ExpectBlockEnd() {
  if (Current().kind != Kind::kBlockEnd) return Unexpected();
  Advance();
  return absl::OkStatus();
}

absl::StatusOr<std::string> TemplateParser::ExpectName() {
  if (Current().kind != Kind::kName) return Unexpected();
  std::string name = Current().value;
  Advance();
  return name;
}

absl::Status TemplateParser::Unexpected() const {
  switch (Current().kind) {
    case Kind::kEnd:
      return TemplateInvalid(line(), "the template ends inside a tag");
    case Kind::kVariableEnd:
      return TemplateInvalid(line(), "unexpected '}}'");
    case Kind::kBlockEnd:
      return TemplateInvalid(line(), "unexpected '%}'");
    case Kind::kString:
      return TemplateInvalid(line(), "an unexpected string");
    default:
      return TemplateInvalid(line(), absl::StrCat("unexpected '", Current().value.substr(0, 40), "'"));
  }
}

absl::Status TemplateParser::CheckDepth(int depth) const {
  return depth <= max_depth_ ? absl::OkStatus() : TemplateInvalid(line(), "nested too deep");
}

}  // namespace weft
