// Opens the devices of one kind.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace weft {

enum class DeviceKind { kCpu };

struct DeviceOptions {
  DeviceKind kind = DeviceKind::kCpu;
  int num_threads = 0;  // of the CPU backend, the calling thread included; 0: one a core this process may use
};

// The threads that `options` come to.
int NumThreads(const DeviceOptions& options);

// One backend, ready for ops. Errors: InvalidArgument for options the device can't have.
absl::StatusOr<std::unique_ptr<Backend>> OpenDevice(const DeviceOptions& options);

}  // namespace weft
