// out[t] = table[token_ids[t] - first_token], or 0 where the table has no such row. Cost: memory, a row of the table
// read and one of F32 written for each token.
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void EmbedKernel(const int32_t* token_ids, int32_t first_token, const T* table,  // [num_rows, cols]
                            const float* scale,                                             // [num_rows], or null
                            int64_t num_rows, Matrix<float> out, int64_t cols) {
  const int64_t col = ColumnOfThread(1);
  if (col >= cols) return;
  const int64_t row = int64_t{token_ids[blockIdx.x]} - first_token;
  float value = 0;
  if (row >= 0 && row < num_rows) {
    value = ToFloat(table[row * cols + col]);
    if (scale != nullptr) value *= scale[row];
  }
  out.Row(blockIdx.x)[col] = value;
}

template <typename T>
cudaError_t LaunchFor(const int32_t* token_ids, int32_t first_token, const Weight& table, Tensor out,
                      cudaStream_t stream) {
  return Launch(EmbedKernel<T>, ElementGrid(out, 1), stream, token_ids, first_token, table.data.As<const T>(),
                table.scale.As<const float>(), table.out_features, MatrixOf<float>(out), out.cols);
}

}  // namespace

cudaError_t LaunchEmbed(const int32_t* token_ids, int32_t first_token, const Weight& table, Tensor out,
                        cudaStream_t stream) {
  if (table.dtype == DType::kI8) return LaunchFor<int8_t>(token_ids, first_token, table, out, stream);
  WEFT_RETURN_FOR(table.dtype, LaunchFor<T>(token_ids, first_token, table, out, stream));
}

}  // namespace weft::cuda
