// Names for requests and answers that nobody can guess or meet twice.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace weft {

// `prefix` and 24 random hex digits.
std::string RandomId(absl::string_view prefix);

}  // namespace weft
