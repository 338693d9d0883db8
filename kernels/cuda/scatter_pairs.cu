// target[pairs[2 i]] = pairs[2 i + 1]. Cost: a launch; the pairs are few.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"

namespace weft::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) ScatterPairsKernel(const int32_t* pairs, int count, int32_t* target) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i < count) target[pairs[2 * i]] = pairs[2 * i + 1];
}

}  // namespace

cudaError_t LaunchScatterPairs(const int32_t* pairs, int count, int32_t* target, cudaStream_t stream) {
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads)),
                          .block = dim3(kThreads)};
  return Launch(ScatterPairsKernel, shape, stream, pairs, count, target);
}

}  // namespace weft::cuda
