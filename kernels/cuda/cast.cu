// out = x, in another type: 16 bits to F32, exactly, or back, rounded to nearest even. Cost: memory, 6 bytes an
// element.
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

template <typename From, typename To>
__global__ void CastKernel(Matrix<const From> x, Matrix<To> out, int64_t cols) {
  const int64_t col = ColumnOfThread(1);
  if (col < cols) out.Row(blockIdx.x)[col] = FromFloat<To>(ToFloat(x.Row(blockIdx.x)[col]));
}

template <typename From, typename To>
cudaError_t LaunchFor(Tensor x, Tensor out, cudaStream_t stream) {
  return Launch(CastKernel<From, To>, ElementGrid(out, 1), stream, MatrixOf<const From>(x), MatrixOf<To>(out),
                out.cols);
}

}  // namespace

cudaError_t LaunchCast(Tensor x, Tensor out, cudaStream_t stream) {
  if (out.dtype == DType::kF32) WEFT_RETURN_FOR(x.dtype, LaunchFor<T, float>(x, out, stream));
  if (x.dtype == DType::kF32) WEFT_RETURN_FOR(out.dtype, LaunchFor<float, T>(x, out, stream));
  return cudaErrorInvalidValue;
}

}  // namespace weft::cuda
