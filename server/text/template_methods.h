// The methods that a template may call on texts, dicts, sequences and `loop`. None of them changes its object.
#pragma once

#include "absl/strings/string_view.h"
#include "server/text/template_function.h"
#include "server/text/template_value.h"

namespace weft {

// The method `name` of this kind of value; null when it has none.
const TemplateFunction* FindTemplateMethod(const TemplateValue& value, absl::string_view name);

// True when some kind of value has the method; load-time check.
bool IsTemplateMethod(absl::string_view name);

// Python's dict has these methods, which change it; the sandbox hides them, and with them a key of the same name under
// dict.name (not under dict["name"]).
bool HidesDictKey(absl::string_view name);

}  // namespace weft
