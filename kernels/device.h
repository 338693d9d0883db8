// Opens the devices of one kind, and groups of ranks on them.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/communicator.h"

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

// One end for each rank of a group within this process, by rank. A sender may be `max_messages_ahead` of its receiver,
// or less where messages are large. Errors: InvalidArgument, ResourceExhausted.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> OpenGroup(DeviceKind kind, int num_ranks,
                                                                     int max_messages_ahead);

}  // namespace weft
