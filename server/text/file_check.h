#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace weft {

// Whether a file of the model directory is what it should be: asked with all of its bytes before they are parsed, or
// null when there is no such file. Its error refuses the model. Null: any will do.
using FileCheck = std::function<absl::Status(absl::string_view name, const std::string* bytes)>;

}  // namespace weft
