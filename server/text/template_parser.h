#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/status_macros.h"
#include "server/text/template_ast.h"
#include "server/text/template_lexer.h"

namespace weft {

// Turns the tokens of one template into its tree: Jinja's grammar without what loads other templates or reflects on
// objects. Refuses at once, naming the line, every filter, test, method, function and tag that the interpreter doesn't
// have, and any nesting deeper than `max_depth`. One use, one thread.
class TemplateParser {
 public:
  TemplateParser(std::vector<TemplateToken> tokens, int max_depth)
      : tokens_(std::move(tokens)), max_depth_(max_depth) {}

  absl::StatusOr<TemplateBody> Parse();

 private:
  using Kind = TemplateToken::Kind;
  using Expr = TemplateExprPtr;
  using Names = std::vector<absl::string_view>;

  // Counts one level of recursion while it lives.
  class Level {
   public:
    explicit Level(int* depth) : depth_(depth) { ++*depth_; }
    ~Level() { --*depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    int* depth_;
  };

  // Statements (template_parser.cc). A body ends before the tag name that is one of `ends`; at the end of the source
  // when `ends` is empty.
  absl::StatusOr<TemplateBody> ParseBody(const Names& ends);
  absl::StatusOr<TemplateBody> ParseBlock(const Names& ends);  // the rest of an opening tag, then a body
  absl::StatusOr<TemplateBody> ParseWholeBlock(absl::string_view end);
  absl::StatusOr<TemplateStatement> ParseOutput();
  absl::StatusOr<TemplateStatement> ParseStatement();
  absl::StatusOr<TemplateStatement> ParseIf();
  absl::StatusOr<TemplateStatement> ParseFor();
  absl::StatusOr<TemplateStatement> ParseSet();
  absl::StatusOr<TemplateStatement> ParseMacro();
  absl::StatusOr<TemplateStatement> ParseFilterBlock();
  absl::StatusOr<TemplateStatement> ParseWith();
  absl::StatusOr<TemplateStatement> ParseLoopControl(bool is_break);
  absl::Status RefuseTag(absl::string_view name);
  absl::StatusOr<TemplateTarget> ParseTarget(bool allow_attribute);
  absl::StatusOr<TemplateTarget> ParseTargetPart(bool allow_attribute);
  absl::Status CheckCalledNames() const;

  // Expressions (template_expression_parser.cc), from the loosest to the tightest binding.
  absl::StatusOr<Expr> ParseTuple(bool with_conditional, bool in_parentheses);
  absl::StatusOr<Expr> ParseExpression();
  absl::StatusOr<Expr> ParseLogic(bool is_and);
  absl::StatusOr<Expr> ParseNot();
  absl::StatusOr<Expr> ParseCompare();
  bool TakeCompareOp(TemplateCompareOp* op);
  absl::StatusOr<Expr> ParseSum();
  absl::StatusOr<Expr> ParseConcat();
  absl::StatusOr<Expr> ParseProduct();
  absl::StatusOr<Expr> ParsePower();
  absl::StatusOr<Expr> ParseUnary(bool with_filters);
  absl::StatusOr<Expr> ParseFiltersAndTests(Expr expr);
  absl::StatusOr<Expr> ParseFilter(Expr operand);  // after "|"
  absl::StatusOr<Expr> ParseTest(Expr operand);    // after "is"
  absl::StatusOr<std::string> ParseDottedName();
  bool AtTestArgument() const;

  // Operands (template_operand_parser.cc).
  absl::StatusOr<Expr> ParsePrimary();
  absl::StatusOr<Expr> ParseName();
  absl::StatusOr<Expr> ParseNumber();
  absl::StatusOr<Expr> ParseList();
  absl::StatusOr<Expr> ParseDict();
  absl::StatusOr<Expr> ParsePostfix(Expr expr);
  absl::StatusOr<Expr> ParseDot(Expr object);
  absl::StatusOr<Expr> ParseSubscript(Expr object);
  absl::StatusOr<Expr> ParseCall(Expr callee);
  absl::StatusOr<TemplateArgumentExprs> ParseArguments();

  // A node one deeper than its deepest child.
  template <typename Node>
  absl::StatusOr<Expr> Make(Node node, int child_depth) {
    RETURN_IF_ERROR(CheckDepth(child_depth + 1));
    return std::make_unique<TemplateExpr>(TemplateExpr{std::move(node), child_depth + 1});
  }

  const TemplateToken& Current() const { return tokens_[position_]; }
  const TemplateToken& Next() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  void Advance() { position_ = std::min(position_ + 1, tokens_.size() - 1); }
  int line() const { return Current().line; }
  bool AtOperator(absl::string_view op) const { return Current().kind == Kind::kOperator && Current().value == op; }
  bool AtName(absl::string_view name) const { return Current().kind == Kind::kName && Current().value == name; }
  bool TakeOperator(absl::string_view op);
  bool TakeName(absl::string_view name);
  absl::Status ExpectOperator(absl::string_view op);
  absl::Status ExpectBlockEnd();
  absl::StatusOr<std::string> ExpectName();
  absl::Status Unexpected() const;  // the error for the current token
  absl::Status CheckDepth(int depth) const;

  std::vector<TemplateToken> tokens_;
  size_t position_ = 0;
  int max_depth_;
  int depth_ = 0;                                    // levels of the recursion that is going on
  int loop_depth_ = 0;                               // loops that a break would leave
  int macro_depth_ = 0;                              // macros around the current token
  absl::flat_hash_set<std::string> assigned_;        // names that some statement gives a value
  std::vector<std::pair<std::string, int>> called_;  // names that are called, with the line
};

}  // namespace weft
