#include "kernels/device.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/shm_communicator.h"
#include "kernels/cpu/shm_segment.h"
#include "kernels/status_macros.h"

namespace weft {

int NumThreads(const DeviceOptions& options) {
  return options.num_threads > 0 ? options.num_threads : cpu::NumUsableCpus();
}

absl::StatusOr<std::unique_ptr<Backend>> OpenDevice(const DeviceOptions& options) {
  constexpr int kMaxThreads = 1024;
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_threads is ", options.num_threads, ", not in 0 .. ", kMaxThreads));
  }
  switch (options.kind) {
    case DeviceKind::kCpu:
      return std::make_unique<cpu::CpuBackend>(NumThreads(options));
  }
  return absl::InvalidArgumentError("unknown device kind");
}

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> OpenGroup(DeviceKind kind, int num_ranks,
                                                                     int max_messages_ahead) {
  if (kind != DeviceKind::kCpu) return absl::InvalidArgumentError("unknown device kind");
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

}  // namespace weft
