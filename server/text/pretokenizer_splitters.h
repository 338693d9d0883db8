#pragma once

#include <optional>

#include "absl/strings/string_view.h"
#include "server/text/pretokenizer_match.h"

namespace weft {

// The splitting patterns of the common model families, run by hand-written scanners: each character is looked at a
// bounded number of times, whatever the text. They match what a backtracking engine would match, which tests compare.

// GPT-2's pattern, which pre_tokenizer ByteLevel implies:
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
void SplitGpt2(absl::string_view text, std::vector<Match>& matches);

// The pattern of Llama 3 (max_digits 3) and of Qwen 2, 2.5 and 3 (max_digits 1):
//   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,MAX}|
//   ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
void SplitLlama3(absl::string_view text, int max_digits, std::vector<Match>& matches);

// The scanner of a Split regex, if it is one of those above, letter for letter.
std::optional<Matcher> FindSplitter(absl::string_view regex);

}  // namespace weft
