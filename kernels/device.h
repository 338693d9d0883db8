// Opens the devices of one kind, and groups of ranks on them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/backend.h"
#include "kernels/communicator.h"
#include "kernels/rendezvous.h"

namespace weft {

enum class DeviceKind { kCpu, kCuda };  // on the wire, too: numbers stay

// A CUDA device as it is before anything is opened on it.
struct CudaDevice {
  std::string name;
  std::string capability;  // "9.0"
  int64_t memory_bytes = 0;
};

// What this binary can do with CUDA on this machine.
struct CudaSupport {
  std::string built_for;  // compute capabilities, "80, 90a"; empty: built without
  std::string problem;    // what CUDA says where there is no driver, or no device
  std::vector<CudaDevice> devices;
};
CudaSupport FindCuda();

struct DeviceOptions {
  DeviceKind kind = DeviceKind::kCpu;
  int num_threads = 0;  // of the CPU backend, the calling thread included; 0: one a core this process may use
  int device = 0;       // of several CUDA devices
  DType activations = DType::kBF16;  // of a CUDA device; on the CPU they are F32
  bool batch_invariant = true;       // false: a CUDA device may take a faster kernel where many rows share a step
};

// Bytes that may still be allocated on a CUDA device; opens it. Errors: those of OpenDevice.
absl::StatusOr<int64_t> FreeCudaMemory(int device);

// The threads that `options` come to.
int NumThreads(const DeviceOptions& options);

// One backend, ready for ops. Errors: InvalidArgument for options the device can't have, Unavailable where there is no
// such device or this binary was built without it.
absl::StatusOr<std::unique_ptr<Backend>> OpenDevice(const DeviceOptions& options);

// Groups are for tensors in host memory; Backend::GroupOf makes them those of a device.

// One end for each rank of a group within this process, by rank. A sender may be `max_messages_ahead` of its receiver,
// or less where messages are large. Errors: InvalidArgument, ResourceExhausted.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> OpenGroup(int num_ranks, int max_messages_ahead);

// The most memory that such a group takes where each rank sends to one other, messages of `max_message_bytes`. What is
// never touched costs nothing.
int64_t GroupBytes(int num_ranks, int max_messages_ahead, int64_t max_message_bytes);

// The shared memory of a group whose ranks are processes of this host: their parent makes it, and they inherit fd().
class GroupMemory {
 public:
  virtual ~GroupMemory() = default;

  // Closed on exec: whoever starts a rank keeps it open there.
  virtual int fd() const = 0;
  // Ends all ranks' ops; thread-safe. A parent does so for a child that died.
  virtual void Abort(const absl::Status& status) = 0;
};

// Errors: those of OpenGroup.
absl::StatusOr<std::unique_ptr<GroupMemory>> MakeGroupMemory(int num_ranks, int max_messages_ahead);

// A rank's end of a group of processes: through the memory behind `memory_fd`, which it takes and closes.
// Errors: InvalidArgument when that is no such memory, or of another version, or the rank is taken.
absl::StatusOr<std::unique_ptr<Communicator>> JoinGroup(int memory_fd, int rank);

// A rank's end of a group that is spread over hosts.
struct HostGroupOptions {
  int rank = 0;
  int size = 1;
  std::string hostname;    // this host's address, as the others reach it
  absl::Duration timeout;  // of connecting, and of each wait for a peer
  int max_messages_ahead = 16;
};

// Meets the others by `store`. Errors: InvalidArgument, DeadlineExceeded for a rank that doesn't come, Unavailable for
// one that can't be reached.
absl::StatusOr<std::unique_ptr<Communicator>> ConnectGroup(const HostGroupOptions& options, Rendezvous& store);

}  // namespace weft
