// What this binary is: one source for `weft version`, GET /version and the first line of the log.
#pragma once

#include "absl/strings/string_view.h"

namespace weft {

// The project's version, with the commit where the build knew it: "0.1.0", "0.1.0+77b9816" or "0.1.0+77b9816-dirty".
// Fixed when CMake configures, so a commit made since then does not show.
absl::string_view Version();

// How it was built: "Release, GNU 12.2.0".
absl::string_view BuildInfo();

}  // namespace weft
