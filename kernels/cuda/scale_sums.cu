// out[m, n] = sums[m, n] * x_scale[m] * w_scale[n] + bias[n]: what sums of bytes stand for.
// Cost: memory, 4 bytes read and an element of out written; the scales stay in the cache.
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void ScaleSumsKernel(const int32_t* sums, const float* x_scale, WeightView weight, Matrix<T> out,
                                int64_t cols) {
  const int64_t col = ColumnOfThread(1);
  if (col >= cols) return;
  const int64_t row = blockIdx.x;
  const float value = static_cast<float>(sums[row * cols + col]) * (x_scale[row] * weight.scale[col]);
  out.Row(row)[col] = FromFloat<T>(value + (weight.bias == nullptr ? 0 : weight.bias[col]));
}

template <typename T>
cudaError_t LaunchFor(const int32_t* sums, const float* x_scale, const WeightView& weight, Tensor out,
                      cudaStream_t stream) {
  return Launch(ScaleSumsKernel<T>, ElementGrid(out, 1), stream, sums, x_scale, weight, MatrixOf<T>(out), out.cols);
}

}  // namespace

cudaError_t LaunchScaleSums(const int32_t* sums, const float* x_scale, const WeightView& weight, Tensor out,
                            cudaStream_t stream) {
  WEFT_RETURN_FOR(out.dtype, LaunchFor<T>(sums, x_scale, weight, out, stream));
}

}  // namespace weft::cuda
