// Python's operators over template values: arithmetic, comparison, membership, truth, subscripts and iteration.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/text/template_budget.h"
#include "server/text/template_value.h"

namespace weft {

enum class TemplateBinaryOp { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class TemplateCompareOp { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

// left op right. Integers are 64 bits: a result beyond is an error, not a big integer. text % value is not supported.
absl::StatusOr<TemplateValue> TemplateArithmetic(TemplateBinaryOp op, const TemplateValue& left,
                                                 const TemplateValue& right, TemplateBudget& budget);

absl::StatusOr<bool> TemplateCompare(TemplateCompareOp op, const TemplateValue& left, const TemplateValue& right,
                                     TemplateBudget& budget);

// left == right; never an error but for the budget. Origin of text plays no part.
absl::StatusOr<bool> TemplateEqual(const TemplateValue& left, const TemplateValue& right, TemplateBudget& budget);

// left < right; an error for kinds that Python doesn't order.
absl::StatusOr<bool> TemplateLess(const TemplateValue& left, const TemplateValue& right, TemplateBudget& budget);

// bool(value).
bool TemplateTruth(const TemplateValue& value);

// len(value).
absl::StatusOr<int64_t> TemplateLength(const TemplateValue& value);

// The items that `for` walks: of a sequence its items, of a text its characters, of a dict its keys, of undefined none.
absl::StatusOr<std::vector<TemplateValue>> TemplateIterate(const TemplateValue& value, TemplateBudget& budget);

// value.name and value[key], as Jinja's sandbox resolves them: undefined when there is no such thing, an error only on
// undefined itself. A method comes back as an unbound TemplateFunction. There is nothing behind names that begin with
// "_".
absl::StatusOr<TemplateValue> TemplateGetAttribute(const TemplateValue& value, absl::string_view name);
absl::StatusOr<TemplateValue> TemplateGetItem(const TemplateValue& value, const TemplateValue& key);

// value[start:stop:step]; a bound that is none is left out, as in Python.
struct TemplateSliceBounds {
  TemplateValue start;
  TemplateValue stop;
  TemplateValue step;
};
absl::StatusOr<TemplateValue> TemplateSlice(const TemplateValue& value, const TemplateSliceBounds& bounds,
                                            TemplateBudget& budget);

}  // namespace weft
