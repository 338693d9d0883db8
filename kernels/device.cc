#include "kernels/device.h"

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_backend.h"

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

}  // namespace weft
