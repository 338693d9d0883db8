// out = x / sqrt(mean(x^2) + eps) * weight, after x += delta where there is a delta (RMSNorm, arXiv 1910.07467).
// Cost: memory. A row of n elements reads and writes the residual (8 n bytes; 4 n without a delta) and moves 2 n for
// each of delta and out in 16 bits; weight stays in the cache.
#include <cstdint>

#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/shared_memory.cuh"

namespace weft::cuda {
namespace {

constexpr int kThreads = 256;  // whatever the row's length: its sum is the same in any company

// A block a row. What a thread read, and wrote, it reads again once the sum is known: from the cache.
template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads) RmsNormKernel(Matrix<float> x, Matrix<const T> delta, const float* weight,
                                                          Matrix<T> out, int cols, float per_col, float eps) {
  BlockReduction& shared = SharedMemory<BlockReduction>();
  const int64_t row = blockIdx.x;
  float* const x_row = x.Row(row);
  float squares = 0;
  for (int i = threadIdx.x * kVector; i < cols; i += kThreads * kVector) {
    float values[kVector];
    Load(x_row + i, values);
    if (delta.data != nullptr) {
      float added[kVector];
      Load(delta.Row(row) + i, added);
#pragma unroll
      for (int j = 0; j < kVector; ++j) values[j] += added[j];
      Store(x_row + i, values);
    }
#pragma unroll
    for (int j = 0; j < kVector; ++j) squares = fmaf(values[j], values[j], squares);
  }
  const float mean = BlockSum(squares, shared) * per_col;
  const float factor = rsqrtf(mean + eps);
  for (int i = threadIdx.x * kVector; i < cols; i += kThreads * kVector) {
    float values[kVector], weights[kVector];
    Load(x_row + i, values);
    Load(weight + i, weights);
#pragma unroll
    for (int j = 0; j < kVector; ++j) values[j] = values[j] * factor * weights[j];
    Store(out.Row(row) + i, values);
  }
}

template <typename T>
cudaError_t LaunchFor(Tensor x, Tensor delta, const float* weight, float eps, Tensor out, cudaStream_t stream) {
  const bool are_fours = AreFours(x, out) && (delta.data == nullptr || AreFours(delta));
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(x.rows)), .block = dim3(kThreads), .shared_bytes = sizeof(BlockReduction)};
  return Launch(are_fours ? RmsNormKernel<T, 4> : RmsNormKernel<T, 1>, shape, stream, MatrixOf<float>(x),
                MatrixOf<const T>(delta), weight, MatrixOf<T>(out), static_cast<int>(x.cols),
                1 / static_cast<float>(x.cols), eps);
}

}  // namespace

cudaError_t LaunchRmsNorm(Tensor x, Tensor delta, const float* weight, float eps, Tensor out, cudaStream_t stream) {
  WEFT_RETURN_FOR(out.dtype, LaunchFor<T>(x, delta, weight, eps, out, stream));
}

}  // namespace weft::cuda
