#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace weft {

// UTF-8 and the four character classes that tokenizers split on. Everything here is a pure function, safe on any
// thread, and linear in its input.

// One decoded character: its code point and the bytes it took.
struct Utf8Char {
  char32_t code_point = 0;
  int num_bytes = 0;
};

constexpr char32_t kReplacementCodePoint = 0xFFFD;
constexpr absl::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

// The character at text[pos]. Requires pos < text.size(), `text` valid UTF-8 and pos at a character's first byte.
Utf8Char DecodeValidUtf8(absl::string_view text, size_t pos);

// Appends the UTF-8 of a Unicode scalar value.
void AppendUtf8(char32_t code_point, std::string& out);

// What starts at bytes[pos], when nothing is known about the bytes.
enum class Utf8Prefix {
  kCharacter,   // one whole character
  kInvalid,     // bytes that no continuation makes valid
  kIncomplete,  // a true prefix of a character, cut off by the end of the bytes
};
struct Utf8Scan {
  Utf8Prefix prefix;
  // Length of the character, or of the maximal ill-formed subpart (Unicode 16, section 3.9), which is what one U+FFFD
  // replaces; for kIncomplete, all bytes to the end.
  int num_bytes;
};
// Requires pos < bytes.size().
Utf8Scan ScanUtf8(absl::string_view bytes, size_t pos);

// True if `bytes` is well-formed UTF-8.
bool IsValidUtf8(absl::string_view bytes);

// `bytes` with one U+FFFD for each maximal ill-formed subpart: the substitution of the Unicode standard, of Rust's
// from_utf8_lossy and of Python's errors="replace".
std::string ReplaceInvalidUtf8(absl::string_view bytes);

// The classes \p{L}, \p{N}, \s and \w, in the versions that the `tokenizers` package has (see unicode_tables.py).
bool IsLetter(char32_t c);
bool IsNumber(char32_t c);
bool IsSpace(char32_t c);
bool IsWord(char32_t c);

}  // namespace weft
