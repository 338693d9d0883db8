#include "server/random_id.h"

#include <algorithm>
#include <cstdint>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace weft {

std::string RandomId(absl::string_view prefix) {
  thread_local absl::BitGen bits;  // seeded by the system, one for each thread
  const auto high = absl::Uniform<uint64_t>(bits);
  const auto low = absl::Uniform<uint32_t>(bits);
  return absl::StrCat(prefix, absl::Hex(high, absl::kZeroPad16), absl::Hex(low, absl::kZeroPad8));
}

std::string RequestId(absl::string_view given) {
  constexpr size_t kMaxChars = 128;
  const bool safe = !given.empty() && given.size() <= kMaxChars && std::all_of(given.begin(), given.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("-_.:/", c);
  });
  return safe ? std::string(given) : RandomId("req-");
}

}  // namespace weft
