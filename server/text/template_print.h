// Values as text: Python's str() and repr(), and json.dumps() with the defaults of transformers' `tojson`.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/text/template_budget.h"
#include "server/text/template_value.h"

namespace weft {

// str(value), what {{ value }} prints. A text comes back as it is, with its origin; what is made here is untrusted.
// Fails for values whose text is an address in Python (macros, methods, lazy iterators).
absl::StatusOr<TemplateText> TemplateStr(const TemplateValue& value, TemplateBudget& budget);

// repr() of a float: the shortest digits that read back as the same number.
std::string PythonFloat(double value);

struct TemplateJsonOptions {
  bool ensure_ascii = false;          // \uXXXX for everything outside ASCII
  std::optional<std::string> indent;  // one level's indentation; absent: everything on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

// json.dumps(value). Strings keep their origin, everything around them is untrusted. HTML is not escaped, as in
// transformers.
absl::StatusOr<TemplateText> TemplateJson(const TemplateValue& value, const TemplateJsonOptions& options,
                                          TemplateBudget& budget);

}  // namespace weft
