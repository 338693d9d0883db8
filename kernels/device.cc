#include "kernels/device.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/gloo_communicator.h"
#include "kernels/cpu/shm_communicator.h"
#include "kernels/cpu/shm_segment.h"
#ifdef WEFT_CUDA
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/devices.h"
#endif
#include "kernels/status_macros.h"

namespace weft {

int NumThreads(const DeviceOptions& options) {
  return options.num_threads > 0 ? options.num_threads : cpu::NumUsableCpus();
}

namespace {

#ifdef WEFT_CUDA
absl::StatusOr<std::unique_ptr<Backend>> OpenCuda(const DeviceOptions& options) {
  return cuda::CudaBackend::Open(
      {.device = options.device, .activations = options.activations, .batch_invariant = options.batch_invariant});
}
#else
absl::Status WithoutCuda() { return absl::UnavailableError("CUDA: this binary was built without it (WEFT_CUDA)"); }
absl::StatusOr<std::unique_ptr<Backend>> OpenCuda(const DeviceOptions&) { return WithoutCuda(); }
#endif

}  // namespace

#ifdef WEFT_CUDA
CudaSupport FindCuda() { return cuda::FindDevices(); }
absl::StatusOr<int64_t> FreeCudaMemory(int device) { return cuda::FreeMemory(device); }
#else
CudaSupport FindCuda() { return {}; }
absl::StatusOr<int64_t> FreeCudaMemory(int) { return WithoutCuda(); }
#endif

absl::StatusOr<std::unique_ptr<Backend>> OpenDevice(const DeviceOptions& options) {
  constexpr int kMaxThreads = 1024;
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_threads is ", options.num_threads, ", not in 0 .. ", kMaxThreads));
  }
  switch (options.kind) {
    case DeviceKind::kCpu:
      return std::make_unique<cpu::CpuBackend>(NumThreads(options));
    case DeviceKind::kCuda:
      return OpenCuda(options);
  }
  return absl::InvalidArgumentError("unknown device kind");
}

namespace {

class CpuGroupMemory final : public GroupMemory {
 public:
  explicit CpuGroupMemory(std::unique_ptr<cpu::ShmSegment> segment) : segment_(std::move(segment)) {}

  int fd() const override { return segment_->fd(); }
  void Abort(const absl::Status& status) override { segment_->Abort(status); }

 private:
  const std::unique_ptr<cpu::ShmSegment> segment_;
};

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> OpenGroup(int num_ranks, int max_messages_ahead) {
  const cpu::ShmOptions options{.num_ranks = num_ranks, .num_slots = max_messages_ahead};
  ASSIGN_OR_RETURN(std::unique_ptr<cpu::ShmSegment> created, cpu::ShmSegment::Create(options));
  const std::shared_ptr<cpu::ShmSegment> segment = std::move(created);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < num_ranks; ++rank) {
    ASSIGN_OR_RETURN(std::unique_ptr<Communicator> communicator, cpu::ShmCommunicator::Attach(segment, rank));
    ranks.push_back(std::move(communicator));
  }
  return ranks;
}

int64_t GroupBytes(int num_ranks, int max_messages_ahead, int64_t max_message_bytes) {
  const cpu::ShmOptions options;
  const auto slot_bytes = std::min(static_cast<int64_t>(options.slot_bytes), max_message_bytes);
  return num_ranks * (2 * static_cast<int64_t>(options.stage_bytes) + max_messages_ahead * slot_bytes);
}

absl::StatusOr<std::unique_ptr<GroupMemory>> MakeGroupMemory(int num_ranks, int max_messages_ahead) {
  const cpu::ShmOptions options{.num_ranks = num_ranks, .num_slots = max_messages_ahead};
  ASSIGN_OR_RETURN(std::unique_ptr<cpu::ShmSegment> segment, cpu::ShmSegment::Create(options));
  return std::make_unique<CpuGroupMemory>(std::move(segment));
}

absl::StatusOr<std::unique_ptr<Communicator>> JoinGroup(int memory_fd, int rank) {
  ASSIGN_OR_RETURN(std::shared_ptr<cpu::ShmSegment> segment, cpu::ShmSegment::Open(memory_fd));
  return cpu::ShmCommunicator::Attach(std::move(segment), rank);
}

absl::StatusOr<std::unique_ptr<Communicator>> ConnectGroup(const HostGroupOptions& options, Rendezvous& store) {
  cpu::GlooOptions gloo;
  gloo.rank = options.rank;
  gloo.size = options.size;
  gloo.hostname = options.hostname;
  gloo.timeout = options.timeout;
  gloo.num_frames = std::max(gloo.num_frames, options.max_messages_ahead);
  return cpu::GlooCommunicator::Connect(gloo, store);
}

}  // namespace weft
