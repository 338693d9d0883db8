// out[i] = x[rows[i]]. Cost: memory, each element read and written once.
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

template <typename T, int kVector>
__global__ void GatherRowsKernel(Matrix<const T> x, const int32_t* rows, Matrix<T> out, int64_t cols) {
  const int64_t col = ColumnOfThread(kVector);
  if (col >= cols) return;
  using Elements = Pack<T, kVector>;
  *reinterpret_cast<Elements*>(out.Row(blockIdx.x) + col) =
      *reinterpret_cast<const Elements*>(x.Row(rows[blockIdx.x]) + col);
}

template <typename T>
cudaError_t LaunchFor(Tensor x, const int32_t* rows, Tensor out, cudaStream_t stream) {
  const bool are_fours = AreFours(x, out);
  return Launch(are_fours ? GatherRowsKernel<T, 4> : GatherRowsKernel<T, 1>, ElementGrid(out, are_fours ? 4 : 1),
                stream, MatrixOf<const T>(x), rows, MatrixOf<T>(out), out.cols);
}

}  // namespace

cudaError_t LaunchGatherRows(Tensor x, const int32_t* rows, Tensor out, cudaStream_t stream) {
  WEFT_RETURN_FOR(out.dtype, LaunchFor<T>(x, rows, out, stream));
}

}  // namespace weft::cuda
