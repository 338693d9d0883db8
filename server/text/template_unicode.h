// Code points inside UTF-8, as far as chat templates need them. Bytes that are not valid UTF-8 count as one character
// each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace weft {

// The character at `offset`: its code point (or byte value) and length in bytes. Requires offset < text.size().
struct TemplateChar {
  uint32_t code_point;
  size_t num_bytes;
};
TemplateChar DecodeMultiByteChar(absl::string_view text, size_t offset);
inline TemplateChar DecodeChar(absl::string_view text, size_t offset) {
  uint8_t lead = static_cast<uint8_t>(text[offset]);
  return lead < 0x80 ? TemplateChar{lead, 1} : DecodeMultiByteChar(text, offset);
}

// The number of characters in `text`.
size_t CountChars(absl::string_view text);

// The byte offset of character `index`, or text.size() when there are fewer.
size_t CharOffset(absl::string_view text, size_t index);

// White space and line ends as Python's str.strip() and str.splitlines() know them.
bool IsSpaceChar(uint32_t code_point);
bool IsLineEndChar(uint32_t code_point);

// Simple one-to-one case mapping of ASCII, Latin-1, Latin Extended-A, Greek and Cyrillic; other characters stay as they
// are.
uint32_t UpperChar(uint32_t code_point);
uint32_t LowerChar(uint32_t code_point);

}  // namespace weft
