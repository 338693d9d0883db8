#include "server/text/pretokenizer_splitters.h"

#include <utility>

#include "server/text/unicode.h"

namespace weft {
namespace {

constexpr absl::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr char32_t kLongS = 0x17F;  // folds to s

bool IsNewline(char32_t c) { return c == '\r' || c == '\n'; }
bool IsOther(char32_t c) { return !IsSpace(c) && !IsLetter(c) && !IsNumber(c); }

// A position in the text and the character there; at the end, the character is U+0000.
class Cursor {
 public:
  Cursor(absl::string_view text, size_t pos) : text_(text), pos_(pos) { Decode(); }

  bool AtEnd() const { return pos_ == text_.size(); }
  size_t pos() const { return pos_; }
  char32_t operator*() const { return current_.code_point; }

  // Passes the character; nothing happens at the end.
  void Advance() {
    pos_ += static_cast<size_t>(current_.num_bytes);
    Decode();
  }

  // Advances while in the class, at most max_characters times; the number of characters passed.
  template <typename Class>
  size_t Skip(Class in_class, size_t max_characters = SIZE_MAX) {
    size_t n = 0;
    for (; n < max_characters && !AtEnd() && in_class(**this); ++n) Advance();
    return n;
  }

 private:
  void Decode() { current_ = AtEnd() ? Utf8Char{} : DecodeValidUtf8(text_, pos_); }

  absl::string_view text_;
  size_t pos_;
  Utf8Char current_;
};

// The length of 's, 't, 're, 've, 'm, 'll or 'd at the start of `text`; 0 if there is none.
size_t ContractionLength(absl::string_view text, bool ignore_case) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const auto lower = [&](size_t i) {
    const bool is_upper = text[i] >= 'A' && text[i] <= 'Z';
    return ignore_case && is_upper ? static_cast<char>(text[i] + ('a' - 'A')) : text[i];
  };
  const char first = lower(1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (text.size() < 3) return 0;
  const char second = lower(2);
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  if (first == 'l' && second == 'l') return 3;
  if (ignore_case && DecodeValidUtf8(text, 1).code_point == kLongS) return 3;
  return 0;
}

// The end of \s+(?!\S)|\s+ : the whole run of spaces if the text ends there or the run is one character, else all but
// its last character, which is left to join what follows. Requires a space at `begin`.
size_t EndOfSpaces(absl::string_view text, size_t begin) {
  size_t last = begin;
  Cursor cursor(text, begin);
  for (; !cursor.AtEnd() && IsSpace(*cursor); cursor.Advance()) last = cursor.pos();
  return cursor.AtEnd() || last == begin ? cursor.pos() : last;
}

// The end of \s*[\r\n]+ : just after the last newline of the run of spaces; `begin` if it has none.
size_t EndOfNewlines(absl::string_view text, size_t begin) {
  size_t end = begin;
  for (Cursor cursor(text, begin); !cursor.AtEnd() && IsSpace(*cursor);) {
    const bool is_newline = IsNewline(*cursor);
    cursor.Advance();
    if (is_newline) end = cursor.pos();
  }
  return end;
}

size_t EndOfGpt2Match(absl::string_view text, size_t begin) {
  const size_t contraction = ContractionLength(text.substr(begin), /*ignore_case=*/false);
  if (contraction > 0) return begin + contraction;
  Cursor cursor(text, begin);
  if (*cursor == ' ') cursor.Advance();
  if (cursor.Skip(IsLetter) > 0 || cursor.Skip(IsNumber) > 0 || cursor.Skip(IsOther) > 0) return cursor.pos();
  return EndOfSpaces(text, begin);
}

size_t EndOfLlama3Match(absl::string_view text, size_t begin, size_t max_digits) {
  const size_t contraction = ContractionLength(text.substr(begin), /*ignore_case=*/true);
  if (contraction > 0) return begin + contraction;
  Cursor word(text, begin);
  if (!IsLetter(*word) && !IsNumber(*word) && !IsNewline(*word)) word.Advance();
  if (word.Skip(IsLetter) > 0) return word.pos();
  Cursor other(text, begin);
  if (other.Skip(IsNumber, max_digits) > 0) return other.pos();
  if (*other == ' ') other.Advance();
  if (other.Skip(IsOther) > 0) {
    other.Skip(IsNewline);
    return other.pos();
  }
  const size_t newlines = EndOfNewlines(text, begin);
  return newlines > begin ? newlines : EndOfSpaces(text, begin);
}

}  // namespace

void SplitGpt2(absl::string_view text, std::vector<Match>& matches) {
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = EndOfGpt2Match(text, pos);
    matches.push_back({pos, end, true});
    pos = end;
  }
}

void SplitLlama3(absl::string_view text, int max_digits, std::vector<Match>& matches) {
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = EndOfLlama3Match(text, pos, static_cast<size_t>(max_digits));
    matches.push_back({pos, end, true});
    pos = end;
  }
}

std::optional<Matcher> FindSplitter(absl::string_view regex) {
  if (regex == kGpt2) return Matcher(SplitGpt2);
  for (const auto& [pattern, max_digits] : {std::pair(kLlama3, 3), std::pair(kQwen2, 1)}) {
    if (regex != pattern) continue;
    return Matcher([digits = max_digits](absl::string_view text, std::vector<Match>& matches) {
      SplitLlama3(text, digits, matches);
    });
  }
  return std::nullopt;
}

}  // namespace weft
