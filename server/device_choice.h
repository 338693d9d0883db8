// What computes: the CPU, or CUDA devices; ranks in threads, or in processes.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/model_config.h"
#include "kernels/device.h"
#include "server/config.h"

namespace weft {

struct DeviceChoice {
  DeviceOptions device;  // of a rank, but for its number
  WorkerKind workers = WorkerKind::kThreads;
  int64_t device_memory_bytes = 0;  // that Weft takes of each CUDA device, at most; kCpu: 0
};

// What the settings come to where `cuda` is what there is. Error: InvalidArgument "device: ..." for CUDA that can't be
// used, or fewer devices than ranks.
absl::StatusOr<DeviceChoice> ChooseDevice(const Config& config, const ModelConfig& model, const CudaSupport& cuda);

}  // namespace weft
