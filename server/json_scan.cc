#include "server/json_scan.h"

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "server/api_error.h"
#include "server/text/unicode.h"

namespace weft {
namespace {

bool HasByteOrderMark(absl::string_view text) {
  return absl::StartsWith(text, "\xEF\xBB\xBF") || absl::StartsWith(text, "\xFE\xFF") ||
         absl::StartsWith(text, "\xFF\xFE");
}

// The value of the escape \uXXXX at `text[pos]`, or none if something else is there.
std::optional<uint32_t> UnicodeEscape(absl::string_view text, size_t pos) {
  if (pos + 6 > text.size() || text[pos] != '\\' || text[pos + 1] != 'u') return std::nullopt;
  uint32_t value = 0;
  for (const char c : text.substr(pos + 2, 4)) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return std::nullopt;
    value = value * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return value;
}

// Length of the escape sequence at `text[pos]`, or 0 where it is half a surrogate pair.
size_t EscapeLength(absl::string_view text, size_t pos) {
  const std::optional<uint32_t> first = UnicodeEscape(text, pos);
  if (!first.has_value() || *first < 0xD800 || *first > 0xDFFF) return 2;  // more hex digits are ordinary characters
  const std::optional<uint32_t> second = UnicodeEscape(text, pos + 6);
  const bool is_pair = *first < 0xDC00 && second.has_value() && *second >= 0xDC00 && *second <= 0xDFFF;
  return is_pair ? 12 : 0;
}

}  // namespace

absl::Status ScanJson(absl::string_view text) {
  if (text.empty()) return BadRequest("invalid_json", "", "The body is empty; it must be a JSON object.");
  if (HasByteOrderMark(text)) {
    return BadRequest("invalid_json", "", "The body must be UTF-8 without a byte order mark.");
  }
  if (!IsValidUtf8(text)) return BadRequest("invalid_utf8", "", "The body is not valid UTF-8.");
  int depth = 0;
  bool in_string = false;
  for (size_t pos = 0; pos < text.size(); ++pos) {
    const char c = text[pos];
    if (in_string) {
      if (c == '"') in_string = false;
      if (c != '\\') continue;
      const size_t length = EscapeLength(text, pos);
      if (length == 0) return BadRequest("invalid_utf8", "", "The body has an escape that is half a surrogate pair.");
      pos += length - 1;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxJsonDepth) return BadRequest("json_too_deep", "", "The body is nested deeper than 64 levels.");
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return absl::OkStatus();
}

}  // namespace weft
