// Which CUDA devices there are.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace weft::cuda {

// See weft::FindCuda.
CudaSupport FindDevices();

// Bytes that may still be allocated on a device. Opens it for this process, which takes some of its memory.
absl::StatusOr<int64_t> FreeMemory(int device);

}  // namespace weft::cuda
