#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/text/pretokenizer_match.h"

namespace weft {

// A matcher for any other Split regex, run by PCRE2's interpreter (not its JIT compiler, whose limits count otherwise:
// ids must not depend on the machine).
//
// What is accepted is the language that PCRE2 and the Oniguruma of the `tokenizers` package read alike: literals,
// classes of characters, ranges, \p{..} with a general category, \s \d \r \n \t, groups (?: (?i: (?= (?!, alternation
// and quantifiers. Refused: backreferences, lookbehind, a repeated group that repeats inside, as in (a+)+, anchors,
// what matches the empty string, and every construct not named here. The error is a plain message without a code word.
//
// Work is bounded: a match looks at no more than 16 KiB, so a longer piece is cut there, and after a match that costs
// more than a million steps the rest of the text is one piece. Both are far beyond natural text, and deterministic.
absl::StatusOr<Matcher> CompilePattern(const std::string& regex);

// Why CompilePattern would refuse the construction of `regex`, before PCRE2 sees it.
absl::Status ScreenPattern(absl::string_view regex);

}  // namespace weft
