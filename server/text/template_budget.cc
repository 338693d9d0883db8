#include "server/text/template_budget.h"

#include "server/text/template_errors.h"

namespace weft {

absl::Status TemplateBudget::Spend(int64_t steps) {
  if (steps > steps_left_) {
    steps_left_ = 0;
    return TemplateOverBudget("too many steps");
  }
  steps_left_ -= steps;
  return absl::OkStatus();
}

absl::Status TemplateBudget::SpendText(size_t bytes) { return SpendGrowth(0, bytes); }

absl::Status TemplateBudget::SpendGrowth(size_t bytes, size_t added) {
  if (bytes > max_text_bytes_ || added > max_text_bytes_ - bytes) return TemplateOverBudget("too much text");
  return SpendBytes(added);
}

}  // namespace weft
