#include "server/text/unicode.h"

#include <algorithm>
#include <iterator>

namespace weft {
namespace {

#include "server/text/unicode_class_tables.inc"

template <size_t n>
bool InRanges(const char32_t (&ranges)[n][2], char32_t c) {
  const auto* range =
      std::lower_bound(std::begin(ranges), std::end(ranges), c, [](const auto& r, char32_t x) { return r[1] < x; });
  return range != std::end(ranges) && (*range)[0] <= c;
}

// The bytes that a lead byte promises, and the range of the second byte that keeps the sequence shortest-form,
// below U+110000 and off the surrogates (Unicode 16, table 3-7). length 0: not a lead byte.
struct Lead {
  int length;
  uint8_t second_min;
  uint8_t second_max;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Char DecodeValidUtf8(absl::string_view text, size_t pos) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text[pos + i])); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

void AppendUtf8(char32_t c, std::string& out) {
  const auto append = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    append(c);
  } else if (c < 0x800) {
    append(0xC0 | c >> 6);
    append(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    append(0xE0 | c >> 12);
    append(0x80 | (c >> 6 & 0x3F));
    append(0x80 | (c & 0x3F));
  } else {
    append(0xF0 | c >> 18);
    append(0x80 | (c >> 12 & 0x3F));
    append(0x80 | (c >> 6 & 0x3F));
    append(0x80 | (c & 0x3F));
  }
}

Utf8Scan ScanUtf8(absl::string_view bytes, size_t pos) {
  const Lead lead = LeadOf(static_cast<uint8_t>(bytes[pos]));
  if (lead.length == 0) return {Utf8Prefix::kInvalid, 1};
  for (int i = 1; i < lead.length; ++i) {
    if (pos + static_cast<size_t>(i) == bytes.size()) return {Utf8Prefix::kIncomplete, i};
    const auto byte = static_cast<uint8_t>(bytes[pos + static_cast<size_t>(i)]);
    const uint8_t min = i == 1 ? lead.second_min : uint8_t{0x80};
    const uint8_t max = i == 1 ? lead.second_max : uint8_t{0xBF};
    if (byte < min || byte > max) return {Utf8Prefix::kInvalid, i};
  }
  return {Utf8Prefix::kCharacter, lead.length};
}

bool IsValidUtf8(absl::string_view bytes) {
  for (size_t pos = 0; pos < bytes.size();) {
    const Utf8Scan scan = ScanUtf8(bytes, pos);
    if (scan.prefix != Utf8Prefix::kCharacter) return false;
    pos += static_cast<size_t>(scan.num_bytes);
  }
  return true;
}

std::string ReplaceInvalidUtf8(absl::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t pos = 0; pos < bytes.size();) {
    const Utf8Scan scan = ScanUtf8(bytes, pos);
    const auto num_bytes = static_cast<size_t>(scan.num_bytes);
    const absl::string_view valid = bytes.substr(pos, num_bytes);
    const absl::string_view kept = scan.prefix == Utf8Prefix::kCharacter ? valid : kReplacementUtf8;
    out.append(kept.data(), kept.size());
    pos += num_bytes;
  }
  return out;
}

bool IsLetter(char32_t c) {
  if (c < 0x80) return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
  return InRanges(kLetterRanges, c);
}

bool IsNumber(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  return InRanges(kNumberRanges, c);
}

bool IsSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return InRanges(kSpaceRanges, c);
}

bool IsWord(char32_t c) { return InRanges(kWordRanges, c); }

}  // namespace weft
