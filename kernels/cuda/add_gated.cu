// out += sigmoid(gate) * x. Cost: memory, 6 bytes an element in 16 bits.
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void AddGatedKernel(Matrix<const T> gate, Matrix<const T> x, Matrix<T> out, int64_t cols) {
  const int64_t col = ColumnOfThread(1);
  if (col >= cols) return;
  const float factor = 1 / (1 + expf(-ToFloat(gate.Row(blockIdx.x)[0])));
  T& to = out.Row(blockIdx.x)[col];
  to = FromFloat<T>(fmaf(ToFloat(x.Row(blockIdx.x)[col]), factor, ToFloat(to)));
}

template <typename T>
cudaError_t LaunchFor(Tensor gate, Tensor x, Tensor out, cudaStream_t stream) {
  return Launch(AddGatedKernel<T>, ElementGrid(out, 1), stream, MatrixOf<const T>(gate), MatrixOf<const T>(x),
                MatrixOf<T>(out), out.cols);
}

}  // namespace

cudaError_t LaunchAddGated(Tensor gate, Tensor x, Tensor out, cudaStream_t stream) {
  WEFT_RETURN_FOR(out.dtype, LaunchFor<T>(gate, x, out, stream));
}

}  // namespace weft::cuda
