// A first look at a JSON document of a client, before any tree is built.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace weft {

inline constexpr int kMaxJsonDepth = 64;

// Refuses, in one pass and constant memory: nothing or a byte order mark (invalid_json), bytes that aren't UTF-8 and
// \u escapes that name half a surrogate pair (invalid_utf8), nesting beyond kMaxJsonDepth (json_too_deep). What passes
// need not be JSON; that is the parser's to say.
absl::Status ScanJson(absl::string_view text);

}  // namespace weft
