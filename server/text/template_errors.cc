#include "server/text/template_errors.h"

#include "absl/strings/str_cat.h"

namespace weft {

absl::Status TemplateInvalid(int line, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("template_invalid: line ", line, ": ", what));
}

absl::Status TemplateUnsupported(int line, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("template_unsupported: line ", line, ": ", what));
}

absl::Status TemplateFailed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("template_failed: ", what));
}

absl::Status TemplateOverBudget(absl::string_view what) {
  return absl::ResourceExhaustedError(absl::StrCat("template_budget: ", what));
}

absl::Status TemplateRejected() {
  return absl::InvalidArgumentError("template_rejected: the model's chat template does not accept these messages");
}

}  // namespace weft
