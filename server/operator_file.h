// A file that the operator names: keys, tenants.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft {

// All of a regular file of at most 16 MiB; `what` names it in errors. Never waits: a pipe or a device is refused before
// it is read. Errors: NotFound when it can't be read or is empty, InvalidArgument when it is no such file, or larger.
absl::StatusOr<std::string> ReadOperatorFile(absl::string_view what, const std::string& path);

}  // namespace weft
