#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft {

// The numeric address of this host by which packets to `host_port` leave. Error: InvalidArgument for a name that isn't
// known, Unavailable without a route.
absl::StatusOr<std::string> LocalAddressTowards(absl::string_view host_port);

}  // namespace weft
