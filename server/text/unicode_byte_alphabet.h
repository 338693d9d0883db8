#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace weft {

// The byte-level alphabet of GPT-2: each of the 256 bytes has a printable character that stands for it in
// vocabularies. Printable Latin-1 stands for itself; the 68 other bytes, in order, are U+0100 and up.

// The byte that a character stands for, if any.
std::optional<unsigned char> ByteOfCharacter(char32_t c);

// The bytes that a spelling stands for; nullopt if it has a character outside the alphabet. Requires valid UTF-8.
std::optional<std::string> BytesOfSpelling(absl::string_view spelling);

}  // namespace weft
