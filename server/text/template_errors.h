// The errors a chat template can cause. Each message begins with a fixed code that callers and tests match on; no
// message ever quotes request data.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace weft {

// Load time: the source is not a template (syntax, nesting, size, include/import/extends). InvalidArgument.
absl::Status TemplateInvalid(int line, absl::string_view what);

// Load time: valid Jinja, but outside the subset (an unknown filter, test, function or tag). InvalidArgument.
absl::Status TemplateUnsupported(int line, absl::string_view what);

// Render time: what Jinja would raise on these inputs (a missing attribute's attribute, 1 + "a"). InvalidArgument.
absl::Status TemplateFailed(absl::string_view what);

// Render time: out of steps, text or depth. ResourceExhausted.
absl::Status TemplateOverBudget(absl::string_view what);

// Render time: the template called raise_exception. InvalidArgument with a fixed text, because the template's own text
// may quote the request.
absl::Status TemplateRejected();

}  // namespace weft
