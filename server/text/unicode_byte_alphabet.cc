#include "server/text/unicode_byte_alphabet.h"

#include <array>
#include <cstdint>

#include "server/text/unicode.h"

namespace weft {
namespace {

constexpr char32_t kFirstStandIn = 0x100;
constexpr int kNumStandIns = 68;

constexpr bool StandsForItself(char32_t c) { return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF && c != 0xAD); }

constexpr std::array<uint8_t, kNumStandIns> kStandIns = [] {
  std::array<uint8_t, kNumStandIns> bytes = {};
  size_t n = 0;
  for (char32_t c = 0; c < 0x100; ++c) {
    if (!StandsForItself(c)) bytes[n++] = static_cast<uint8_t>(c);
  }
  return bytes;
}();

}  // namespace

std::optional<unsigned char> ByteOfCharacter(char32_t c) {
  if (c < 0x100) return StandsForItself(c) ? std::optional<unsigned char>(static_cast<uint8_t>(c)) : std::nullopt;
  if (c < kFirstStandIn + kNumStandIns) return kStandIns[c - kFirstStandIn];
  return std::nullopt;
}

std::optional<std::string> BytesOfSpelling(absl::string_view spelling) {
  std::string bytes;
  for (size_t pos = 0; pos < spelling.size();) {
    const Utf8Char c = DecodeValidUtf8(spelling, pos);
    const std::optional<unsigned char> byte = ByteOfCharacter(c.code_point);
    if (!byte.has_value()) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
    pos += static_cast<size_t>(c.num_bytes);
  }
  return bytes;
}

}  // namespace weft
