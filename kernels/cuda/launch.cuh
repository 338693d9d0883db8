// Starts kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace weft::cuda {

struct LaunchShape {
  dim3 grid, block;
  size_t shared_bytes = 0;
};

// A shape that no device can have, or an earlier kernel's fault, is the error; an empty grid is none.
template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                   Arguments... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return cudaSuccess;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace weft::cuda
