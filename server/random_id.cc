#include "server/random_id.h"

#include <cstdint>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"

namespace weft {

std::string RandomId(absl::string_view prefix) {
  thread_local absl::BitGen bits;  // seeded by the system, one for each thread
  const auto high = absl::Uniform<uint64_t>(bits);
  const auto low = absl::Uniform<uint32_t>(bits);
  return absl::StrCat(prefix, absl::Hex(high, absl::kZeroPad16), absl::Hex(low, absl::kZeroPad8));
}

}  // namespace weft
