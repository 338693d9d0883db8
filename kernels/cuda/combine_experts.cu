// out[t] = sum over j of weights[t, j] * x[places[t, j]], in the order of j. Cost: memory, k + 1 elements for each of
// out.
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void CombineExpertsKernel(Matrix<const T> x, TokenExperts experts, const int32_t* places, Matrix<T> out,
                                     int64_t cols) {
  const int64_t col = ColumnOfThread(1);
  if (col >= cols) return;
  const int64_t first = int64_t{blockIdx.x} * experts.k;
  float sum = 0;
  for (int64_t pair = first; pair < first + experts.k; ++pair) {
    if (places[pair] >= 0) sum = fmaf(ToFloat(x.Row(places[pair])[col]), experts.weights[pair], sum);
  }
  out.Row(blockIdx.x)[col] = FromFloat<T>(sum);
}

template <typename T>
cudaError_t LaunchFor(Tensor x, const TokenExperts& experts, const int32_t* places, Tensor out, cudaStream_t stream) {
  return Launch(CombineExpertsKernel<T>, ElementGrid(out, 1), stream, MatrixOf<const T>(x), experts, places,
                MatrixOf<T>(out), out.cols);
}

}  // namespace

cudaError_t LaunchCombineExperts(Tensor x, const TokenExperts& experts, const int32_t* places, Tensor out,
                                 cudaStream_t stream) {
  WEFT_RETURN_FOR(out.dtype, LaunchFor<T>(x, experts, places, out, stream));
}

}  // namespace weft::cuda
