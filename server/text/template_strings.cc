#include "server/text/template_strings.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_unicode.h"
#include "server/text/unicode.h"

namespace weft {
namespace {

using Value = TemplateValue;

bool IsCased(uint32_t c) { return UpperChar(c) != c || LowerChar(c) != c || c == 0xDF; }

// `set` is sorted; null means white space.
bool InSet(uint32_t c, const std::vector<uint32_t>* set) {
  return set ? std::binary_search(set->begin(), set->end(), c) : IsSpaceChar(c);
}

// The start of the character that ends at `end`.
size_t PreviousChar(absl::string_view text, size_t end) {
  if (static_cast<uint8_t>(text[end - 1]) < 0x80) return end - 1;
  for (size_t back = 4; back > 1; --back) {
    if (back <= end && DecodeChar(text, end - back).num_bytes == back) return end - back;
  }
  return end - 1;
}

// A splitter that pays for every piece and can reverse them at the end.
class Pieces {
 public:
  Pieces(const TemplateText& text, TemplateBudget& budget) : text_(text), budget_(budget) {}

  absl::Status Add(size_t begin, size_t end) {
    RETURN_IF_ERROR(budget_.Spend(1));
    RETURN_IF_ERROR(budget_.SpendBytes(end - begin));
    pieces_.push_back(Value::Text(text_.Slice(begin, end)));
    return absl::OkStatus();
  }

  std::vector<Value> Take(bool reversed) {
    if (reversed) std::reverse(pieces_.begin(), pieces_.end());
    return std::move(pieces_);
  }

 private:
  const TemplateText& text_;
  TemplateBudget& budget_;
  std::vector<Value> pieces_;
};

absl::StatusOr<std::vector<Value>> SplitAtSpace(const TemplateText& text, const TemplateSplit& split,
                                                TemplateBudget& budget) {
  const std::string& bytes = text.bytes();
  Pieces pieces(text, budget);
  size_t offset = 0;
  auto skip = [&](bool spaces) {
    while (offset < bytes.size()) {
      TemplateChar c = DecodeChar(bytes, offset);
      if (IsSpaceChar(c.code_point) != spaces) break;
      offset += c.num_bytes;
    }
  };
  int64_t left = split.max_splits;
  for (skip(true); offset < bytes.size(); skip(true)) {
    size_t begin = offset;
    if (left-- == 0) {
      RETURN_IF_ERROR(pieces.Add(begin, bytes.size()));
      break;
    }
    skip(false);
    RETURN_IF_ERROR(pieces.Add(begin, offset));
  }
  return pieces.Take(false);
}

absl::StatusOr<std::vector<Value>> SplitAtSpaceFromRight(const TemplateText& text, const TemplateSplit& split,
                                                         TemplateBudget& budget) {
  const std::string& bytes = text.bytes();
  Pieces pieces(text, budget);
  size_t end = bytes.size();
  auto skip = [&](bool spaces) {
    while (end > 0) {
      size_t at = PreviousChar(bytes, end);
      if (IsSpaceChar(DecodeChar(bytes, at).code_point) != spaces) break;
      end = at;
    }
  };
  int64_t left = split.max_splits;
  for (skip(true); end > 0; skip(true)) {
    size_t piece_end = end;
    if (left-- == 0) {
      RETURN_IF_ERROR(pieces.Add(0, piece_end));
      break;
    }
    skip(false);
    RETURN_IF_ERROR(pieces.Add(end, piece_end));
  }
  return pieces.Take(true);
}

// Where `separator` occurs, left to right without overlap, or right to left without overlap.
absl::StatusOr<std::vector<size_t>> FindSeparators(absl::string_view text, absl::string_view separator,
                                                   const TemplateSplit& split, TemplateBudget& budget) {
  std::vector<size_t> found;
  if (!split.from_right) {
    for (size_t at = FindBytes(text, separator, 0); at != absl::string_view::npos;
         at = FindBytes(text, separator, at + separator.size())) {
      if (split.max_splits >= 0 && static_cast<int64_t>(found.size()) == split.max_splits) break;
      RETURN_IF_ERROR(budget.Spend(1));
      found.push_back(at);
    }
    return found;
  }
  std::string reversed(text.rbegin(), text.rend());
  std::string needle(separator.rbegin(), separator.rend());
  for (size_t at = FindBytes(reversed, needle, 0); at != absl::string_view::npos;
       at = FindBytes(reversed, needle, at + needle.size())) {
    if (split.max_splits >= 0 && static_cast<int64_t>(found.size()) == split.max_splits) break;
    RETURN_IF_ERROR(budget.Spend(1));
    found.push_back(text.size() - at - needle.size());
  }
  std::reverse(found.begin(), found.end());
  return found;
}

}  // namespace

TemplateText StripText(const TemplateText& text, const TemplateText* chars, TemplateStripSide side) {
  std::vector<uint32_t> set;
  if (chars) {
    for (size_t offset = 0; offset < chars->size();) {
      TemplateChar c = DecodeChar(chars->bytes(), offset);
      set.push_back(c.code_point);
      offset += c.num_bytes;
    }
    std::sort(set.begin(), set.end());
    set.erase(std::unique(set.begin(), set.end()), set.end());
  }
  const std::vector<uint32_t>* stripped = chars ? &set : nullptr;
  const std::string& bytes = text.bytes();
  size_t begin = 0;
  size_t end = bytes.size();
  while (side != TemplateStripSide::kRight && begin < end) {
    TemplateChar c = DecodeChar(bytes, begin);
    if (!InSet(c.code_point, stripped)) break;
    begin += c.num_bytes;
  }
  while (side != TemplateStripSide::kLeft && begin < end) {
    size_t at = PreviousChar(bytes, end);
    if (!InSet(DecodeChar(bytes, at).code_point, stripped)) break;
    end = at;
  }
  return text.Slice(begin, end);
}

TemplateText MapChars(const TemplateText& text, const TemplateCharMap& map) {
  TemplateText result;
  bool after_letter = false;
  for (const TextSegment& segment : text.Segments()) {
    std::string mapped;
    for (size_t offset = 0; offset < segment.text.size();) {
      TemplateChar c = DecodeChar(segment.text, offset);
      if (c.num_bytes == 1 && c.code_point >= 0x80) {
        mapped.push_back(segment.text[offset]);  // not UTF-8: kept as it is
      } else {
        AppendUtf8(map(c.code_point, after_letter), mapped);
      }
      after_letter = IsCased(c.code_point);
      offset += c.num_bytes;
    }
    result.Append(mapped, segment.trusted);
  }
  return result;
}

TemplateText UpperText(const TemplateText& text) {
  return MapChars(text, [](uint32_t c, bool) { return UpperChar(c); });
}

TemplateText LowerText(const TemplateText& text) {
  return MapChars(text, [](uint32_t c, bool) { return LowerChar(c); });
}

TemplateText CapitalizeText(const TemplateText& text) {
  bool first = true;
  return MapChars(text, [first](uint32_t c, bool) mutable {
    bool upper = std::exchange(first, false);
    return upper ? UpperChar(c) : LowerChar(c);
  });
}

TemplateText TitleText(const TemplateText& text) {
  return MapChars(text, [](uint32_t c, bool after_letter) { return after_letter ? LowerChar(c) : UpperChar(c); });
}

size_t FindBytes(absl::string_view text, absl::string_view needle, size_t from) {
  if (from > text.size()) return absl::string_view::npos;
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : absl::string_view::npos;
}

absl::StatusOr<TemplateText> ReplaceText(const TemplateText& text, const TemplateText& from, const TemplateText& to,
                                         int64_t count, TemplateBudget& budget) {
  const std::string& bytes = text.bytes();
  TemplateText result;
  size_t copied = 0;
  size_t at = FindBytes(bytes, from.bytes(), 0);
  for (int64_t left = count; left != 0 && at != std::string::npos; --left) {
    RETURN_IF_ERROR(budget.Spend(1));
    RETURN_IF_ERROR(budget.SpendGrowth(result.size(), at - copied + to.size()));
    result.AppendRange(text, copied, at);
    result.Append(to);
    copied = at + from.size();
    if (!from.empty()) {
      at = FindBytes(bytes, from.bytes(), copied);
    } else if (at < bytes.size()) {
      at += DecodeChar(bytes, at).num_bytes;  // an empty pattern matches before each character and at the end
    } else {
      break;
    }
  }
  RETURN_IF_ERROR(budget.SpendGrowth(result.size(), bytes.size() - copied));
  result.AppendRange(text, copied, bytes.size());
  return result;
}

absl::StatusOr<std::vector<TemplateValue>> SplitText(const TemplateText& text, const TemplateSplit& split,
                                                     TemplateBudget& budget) {
  if (!split.separator) {
    return split.from_right ? SplitAtSpaceFromRight(text, split, budget) : SplitAtSpace(text, split, budget);
  }
  const std::string& separator = split.separator->bytes();
  if (separator.empty()) return TemplateFailed("an empty separator");
  ASSIGN_OR_RETURN(std::vector<size_t> found, FindSeparators(text.bytes(), separator, split, budget));
  Pieces pieces(text, budget);
  size_t begin = 0;
  for (size_t at : found) {
    RETURN_IF_ERROR(pieces.Add(begin, at));
    begin = at + separator.size();
  }
  RETURN_IF_ERROR(pieces.Add(begin, text.size()));
  return pieces.Take(false);
}

absl::StatusOr<std::vector<TemplateValue>> SplitLines(const TemplateText& text, bool keep_ends,
                                                      TemplateBudget& budget) {
  const std::string& bytes = text.bytes();
  Pieces pieces(text, budget);
  size_t begin = 0;
  for (size_t offset = 0; offset < bytes.size();) {
    TemplateChar c = DecodeChar(bytes, offset);
    size_t line_end = offset;
    offset += c.num_bytes;
    if (!IsLineEndChar(c.code_point)) continue;
    if (c.code_point == '\r' && offset < bytes.size() && bytes[offset] == '\n') ++offset;
    RETURN_IF_ERROR(pieces.Add(begin, keep_ends ? offset : line_end));
    begin = offset;
  }
  if (begin < bytes.size()) RETURN_IF_ERROR(pieces.Add(begin, bytes.size()));
  return pieces.Take(false);
}

absl::StatusOr<TemplateText> JoinTexts(const TemplateText& separator, const std::vector<TemplateText>& parts,
                                       TemplateBudget& budget) {
  TemplateText result;
  for (size_t i = 0; i < parts.size(); ++i) {
    size_t added = parts[i].size() + (i > 0 ? separator.size() : 0);
    RETURN_IF_ERROR(budget.SpendGrowth(result.size(), added));
    if (i > 0) result.Append(separator);
    result.Append(parts[i]);
  }
  return result;
}

}  // namespace weft
