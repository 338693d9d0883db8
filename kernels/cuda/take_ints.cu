// out[i] = from[places[i]] where places[i] >= 0. Cost: a launch; the places are a step's tokens.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"

namespace weft::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    TakeIntsKernel(const int32_t* from, const int32_t* places, int count, int32_t* out) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i < count && places[i] >= 0) out[i] = from[places[i]];
}

}  // namespace

cudaError_t LaunchTakeInts(const int32_t* from, const int32_t* places, int count, int32_t* out, cudaStream_t stream) {
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads)),
                          .block = dim3(kThreads)};
  return Launch(TakeIntsKernel, shape, stream, from, places, count, out);
}

}  // namespace weft::cuda
