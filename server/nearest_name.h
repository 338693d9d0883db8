// What somebody who mistyped a name most likely meant.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace weft {

// The name with the least edit distance (insert, delete, replace) to `given`; the first of equals. Requires names.
std::string NearestName(absl::string_view given, const std::vector<std::string>& names);

}  // namespace weft
