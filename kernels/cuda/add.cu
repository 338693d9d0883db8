// x += delta. Cost: memory, 10 bytes an element in 16 bits.
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

template <typename T, int kVector>
__global__ void AddKernel(Matrix<float> x, Matrix<const T> delta, int64_t cols) {
  const int64_t col = ColumnOfThread(kVector);
  if (col >= cols) return;
  float values[kVector], added[kVector];
  Load(x.Row(blockIdx.x) + col, values);
  Load(delta.Row(blockIdx.x) + col, added);
#pragma unroll
  for (int j = 0; j < kVector; ++j) values[j] += added[j];
  Store(x.Row(blockIdx.x) + col, values);
}

template <typename T>
cudaError_t LaunchFor(Tensor x, Tensor delta, cudaStream_t stream) {
  const bool are_fours = AreFours(x, delta);
  return Launch(are_fours ? AddKernel<T, 4> : AddKernel<T, 1>, ElementGrid(x, are_fours ? 4 : 1), stream,
                MatrixOf<float>(x), MatrixOf<const T>(delta), x.cols);
}

}  // namespace

cudaError_t LaunchAdd(Tensor x, Tensor delta, cudaStream_t stream) {
  WEFT_RETURN_FOR(delta.dtype, LaunchFor<T>(x, delta, stream));
}

}  // namespace weft::cuda
