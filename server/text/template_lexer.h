#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft {

// One token of a template: literal text between tags, or a piece of what stands inside {{ }} and {% %}.
struct TemplateToken {
  enum class Kind {
    kText,           // literal text, white-space control already applied
    kVariableBegin,  // {{
    kVariableEnd,    // }}
    kBlockBegin,     // {%
    kBlockEnd,       // %}
    kName,
    kString,   // value: the unescaped characters
    kInteger,  // value: decimal digits
    kFloat,    // value: as written, without "_"
    kOperator,
    kEnd,
  };

  Kind kind;
  std::string value;
  int line;
};

// Splits a template into tokens, ending with kEnd, as Jinja's lexer does with trim_blocks and lstrip_blocks on and
// keep_trailing_newline off: the white-space rules of transformers. Comments vanish, {% raw %} becomes text.
absl::StatusOr<std::vector<TemplateToken>> LexTemplate(absl::string_view source);

}  // namespace weft
