// Where the ranks of a group that share no memory leave word of themselves before they are connected.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace weft {

// A small store of one group: each key is set once, by one rank. Called by one thread a rank; ranks may share an
// object, so methods are thread-safe.
class Rendezvous {
 public:
  virtual ~Rendezvous() = default;

  virtual absl::Status Set(absl::string_view key, absl::string_view value) = 0;
  // The value, once it is set. Error: DeadlineExceeded after `timeout`, or the store's own.
  virtual absl::StatusOr<std::string> Get(absl::string_view key, absl::Duration timeout) = 0;
};

}  // namespace weft
