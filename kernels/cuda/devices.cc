#include "kernels/cuda/devices.h"

#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/status_macros.h"

namespace weft::cuda {

CudaSupport FindDevices() {
  CudaSupport support{.built_for = WEFT_CUDA_ARCHS, .problem = {}, .devices = {}};
  int num_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&num_devices);
  if (error != cudaSuccess) support.problem = cudaGetErrorString(error);
  int driver = 0;  // none is an insufficient one in CUDA's words
  if (error != cudaSuccess && cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
    support.problem = "there is no driver";
  }
  for (int i = 0; error == cudaSuccess && i < num_devices; ++i) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    support.devices.push_back({.name = properties.name,
                               .capability = absl::StrCat(properties.major, ".", properties.minor),
                               .memory_bytes = static_cast<int64_t>(properties.totalGlobalMem)});
  }
  return support;
}

absl::StatusOr<int64_t> FreeMemory(int device) {
  size_t free = 0, total = 0;
  RETURN_IF_ERROR(ToStatus(cudaSetDevice(device), absl::StrCat("CUDA: device ", device)));
  RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free, &total), absl::StrCat("CUDA: device ", device)));
  return static_cast<int64_t>(free);
}

}  // namespace weft::cuda
