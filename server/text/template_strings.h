// Python's str methods over texts that remember their origin: what filters and methods share.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/text/template_budget.h"
#include "server/text/template_text.h"
#include "server/text/template_value.h"

namespace weft {

enum class TemplateStripSide { kLeft, kRight, kBoth };

// Strips the characters in `chars`, or white space when it is null.
TemplateText StripText(const TemplateText& text, const TemplateText* chars, TemplateStripSide side);

// Maps each character, told whether a cased character stands before it. Origin stays.
using TemplateCharMap = std::function<uint32_t(uint32_t c, bool after_letter)>;
TemplateText MapChars(const TemplateText& text, const TemplateCharMap& map);

TemplateText UpperText(const TemplateText& text);
TemplateText LowerText(const TemplateText& text);
TemplateText CapitalizeText(const TemplateText& text);  // first character upper, all others lower
TemplateText TitleText(const TemplateText& text);       // str.title()

// The byte offset of `needle` in text[from, ...), or npos. Linear time whatever the needle.
size_t FindBytes(absl::string_view text, absl::string_view needle, size_t from);

// str.replace(from, to, count); a negative count replaces all.
absl::StatusOr<TemplateText> ReplaceText(const TemplateText& text, const TemplateText& from, const TemplateText& to,
                                         int64_t count, TemplateBudget& budget);

// str.split(): by a separator (must not be empty), or by white space when it is null. `max_splits` < 0: no limit.
// `from_right` is rsplit().
struct TemplateSplit {
  const TemplateText* separator = nullptr;
  int64_t max_splits = -1;
  bool from_right = false;
};
absl::StatusOr<std::vector<TemplateValue>> SplitText(const TemplateText& text, const TemplateSplit& split,
                                                     TemplateBudget& budget);

// str.splitlines(keepends).
absl::StatusOr<std::vector<TemplateValue>> SplitLines(const TemplateText& text, bool keep_ends, TemplateBudget& budget);

// separator.join(parts).
absl::StatusOr<TemplateText> JoinTexts(const TemplateText& separator, const std::vector<TemplateText>& parts,
                                       TemplateBudget& budget);

}  // namespace weft
