// Names for requests and answers that nobody can guess or meet twice.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace weft {

// `prefix` and 24 random hex digits.
std::string RandomId(absl::string_view prefix);

// The id that a client gave its request, if it is safe wherever it is repeated (in headers, in logs): 1 to 128 letters,
// digits and - _ . : /; else a new one.
std::string RequestId(absl::string_view given);

}  // namespace weft
