// How deep the parts of an expression nest: its own depth is one more.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "server/text/template_ast.h"

namespace weft {

// 0 for null.
inline int DepthOf(const TemplateExprPtr& expr) { return expr ? expr->depth : 0; }

inline int DepthOf(const std::vector<TemplateExprPtr>& exprs) {
  int depth = 0;
  for (const TemplateExprPtr& expr : exprs) depth = std::max(depth, expr->depth);
  return depth;
}

template <typename First>
int DepthOf(const std::vector<std::pair<First, TemplateExprPtr>>& pairs) {
  int depth = 0;
  for (const auto& [first, expr] : pairs) depth = std::max(depth, expr->depth);
  return depth;
}

inline int DepthOf(const TemplateArgumentExprs& arguments) {
  return std::max(DepthOf(arguments.positional), DepthOf(arguments.named));
}

}  // namespace weft
