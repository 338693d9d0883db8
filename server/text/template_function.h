#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/text/template_budget.h"
#include "server/text/template_value.h"

namespace weft {

// The evaluated arguments of one call, as the template wrote them.
struct TemplateArguments {
  std::vector<TemplateValue> positional;
  std::vector<std::pair<std::string, TemplateValue>> named;
};

// What a built-in may see: its operand, its arguments, the meter and the clock. Nothing else of the program.
class TemplateCall {
 public:
  // `raw` and `budget` must outlive the call.
  TemplateCall(TemplateValue input, const TemplateArguments& raw, TemplateBudget& budget, absl::Time now)
      : input_(std::move(input)), raw_(raw), budget_(budget), now_(now) {}

  const TemplateValue& input() const { return input_; }  // a filter's or test's operand, a method's object
  const TemplateArguments& raw() const { return raw_; }
  TemplateBudget& budget() const { return budget_; }
  absl::Time now() const { return now_; }

  // Matches raw() to parameter names, of which the first `num_required` must be given.
  absl::Status Bind(const std::vector<absl::string_view>& names, size_t num_required);

  // Bound argument `i`, by position in the parameter names.
  bool Has(size_t i) const { return bound_[i].has_value(); }
  TemplateValue Arg(size_t i) const { return bound_[i].value_or(TemplateValue()); }
  absl::StatusOr<int64_t> Int(size_t i, int64_t fallback) const;  // error when not an integer; none is the fallback
  bool Truth(size_t i, bool fallback) const;

  // str() of the operand, which most text filters begin with.
  absl::StatusOr<TemplateText> InputText() const;

 private:
  TemplateValue input_;
  const TemplateArguments& raw_;
  TemplateBudget& budget_;
  absl::Time now_;
  std::vector<std::optional<TemplateValue>> bound_;
};

// A built-in filter, test, method or global function. All live in static tables.
struct TemplateFunction {
  absl::string_view name;
  std::vector<absl::string_view> params;
  size_t num_required;
  absl::StatusOr<TemplateValue> (*apply)(const TemplateCall& call);
  bool variadic = false;  // takes raw() itself; params are ignored
};

// Binds and applies; pays for the operand's text and the result's.
absl::StatusOr<TemplateValue> CallTemplateFunction(const TemplateFunction& function, TemplateCall call);

// The entry of `table` with this name; null when there is none.
const TemplateFunction* FindTemplateFunction(const std::vector<TemplateFunction>& table, absl::string_view name);

// The tables. Null when the subset has no such thing.
const TemplateFunction* FindTemplateFilter(absl::string_view name);
const TemplateFunction* FindTemplateTest(absl::string_view name);
const TemplateFunction* FindTemplateGlobal(absl::string_view name);

}  // namespace weft
