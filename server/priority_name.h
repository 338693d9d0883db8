// Priorities as files, requests and metrics spell them.
#pragma once

#include <array>
#include <cstddef>
#include <optional>

#include "absl/strings/string_view.h"
#include "scheduler/request.h"

namespace weft {

inline constexpr std::array<absl::string_view, kNumPriorities> kPriorityNames = {"low", "normal", "high"};

inline absl::string_view PriorityName(Priority priority) { return kPriorityNames[static_cast<size_t>(priority)]; }

inline std::optional<Priority> PriorityOfName(absl::string_view name) {
  for (size_t i = 0; i < kPriorityNames.size(); ++i) {
    if (kPriorityNames[i] == name) return static_cast<Priority>(i);
  }
  return std::nullopt;
}

}  // namespace weft
