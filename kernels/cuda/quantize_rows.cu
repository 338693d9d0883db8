// Rows of activations as bytes, symmetrically, with one scale a row: q = round(x / max|x| * 127), to nearest even.
// Cost: memory, an element read twice (the second time from the cache) and a byte written.
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/shared_memory.cuh"

namespace weft::cuda {
namespace {

constexpr int kThreads = 256;

// A block a row. As on the CPU, bit for bit: divided by the maximum before it is multiplied, which can't overflow; a
// row with anything that isn't finite gets a NaN for its scale.
template <typename T>
__global__ void __launch_bounds__(kThreads) QuantizeRowsKernel(Matrix<const T> x, int cols, int8_t* q, float* scale) {
  BlockReduction& shared = SharedMemory<BlockReduction>();
  const int64_t row = blockIdx.x;
  const T* const values = x.Row(row);
  float magnitude = 0;
  bool is_finite = true;
  for (int i = threadIdx.x; i < cols; i += kThreads) {
    const float value = fabsf(ToFloat(values[i]));
    is_finite = is_finite && value < INFINITY;
    magnitude = fmaxf(magnitude, value);
  }
  const float largest = BlockMax(is_finite ? magnitude : INFINITY, shared);
  const bool is_zero = largest == 0 || largest == INFINITY;
  for (int i = threadIdx.x; i < cols; i += kThreads) {
    const float steps = is_zero ? 0 : ToFloat(values[i]) / largest * 127.0f;
    q[row * cols + i] = static_cast<int8_t>(__float2int_rn(steps));
  }
  if (threadIdx.x == 0) scale[row] = largest == INFINITY ? NAN : largest / 127.0f;
}

template <typename T>
cudaError_t LaunchFor(Tensor x, int8_t* q, float* scale, cudaStream_t stream) {
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(x.rows)), .block = dim3(kThreads), .shared_bytes = sizeof(BlockReduction)};
  return Launch(QuantizeRowsKernel<T>, shape, stream, MatrixOf<const T>(x), static_cast<int>(x.cols), q, scale);
}

}  // namespace

cudaError_t LaunchQuantizeRows(Tensor x, int8_t* q, float* scale, cudaStream_t stream) {
  WEFT_RETURN_FOR(x.dtype, LaunchFor<T>(x, q, scale, stream));
}

}  // namespace weft::cuda
