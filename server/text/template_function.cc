#include "server/text/template_function.h"

#include <algorithm>

#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_operators.h"
#include "server/text/template_print.h"

namespace weft {

absl::Status TemplateCall::Bind(const std::vector<absl::string_view>& names, size_t num_required) {
  bound_.assign(names.size(), std::nullopt);
  if (raw_.positional.size() > names.size()) return TemplateFailed("too many arguments");
  for (size_t i = 0; i < raw_.positional.size(); ++i) bound_[i] = raw_.positional[i];
  for (const auto& [name, value] : raw_.named) {
    auto it = std::find(names.begin(), names.end(), name);
    if (it == names.end()) return TemplateFailed("an unknown argument name");
    std::optional<TemplateValue>& slot = bound_[static_cast<size_t>(it - names.begin())];
    if (slot) return TemplateFailed("an argument given twice");
    slot = value;
  }
  for (size_t i = 0; i < num_required; ++i) {
    if (!bound_[i]) return TemplateFailed("a missing argument");
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> TemplateCall::Int(size_t i, int64_t fallback) const {
  if (!Has(i) || bound_[i]->IsNone()) return fallback;
  if (!bound_[i]->IsIntegral()) return TemplateFailed("an argument that must be an integer");
  return bound_[i]->ToInt();
}

bool TemplateCall::Truth(size_t i, bool fallback) const { return Has(i) ? TemplateTruth(*bound_[i]) : fallback; }

absl::StatusOr<TemplateText> TemplateCall::InputText() const { return TemplateStr(input_, budget_); }

absl::StatusOr<TemplateValue> CallTemplateFunction(const TemplateFunction& function, TemplateCall call) {
  RETURN_IF_ERROR(call.budget().Spend(1));
  if (call.input().IsText()) RETURN_IF_ERROR(call.budget().SpendChars(call.input().AsText().size()));
  if (!function.variadic) RETURN_IF_ERROR(call.Bind(function.params, function.num_required));
  ASSIGN_OR_RETURN(TemplateValue result, function.apply(call));
  if (result.IsText()) RETURN_IF_ERROR(call.budget().SpendText(result.AsText().size()));
  return result;
}

const TemplateFunction* FindTemplateFunction(const std::vector<TemplateFunction>& table, absl::string_view name) {
  auto it = std::find_if(table.begin(), table.end(), [name](const TemplateFunction& f) { return f.name == name; });
  return it == table.end() ? nullptr : &*it;
}

}  // namespace weft
