// Matrices as kernels see them, and the shape of the grids that go over all their elements.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/number.cuh"
#include "kernels/tensor.h"

namespace weft::cuda {

// [rows, cols], rows `stride` elements apart.
template <typename T>
struct Matrix {
  T* data = nullptr;
  int64_t stride = 0;

  __device__ __forceinline__ T* Row(int64_t row) const { return data + row * stride; }
};

template <typename T>
Matrix<T> MatrixOf(const Tensor& x) {
  return {static_cast<T*>(x.data), x.row_stride};
}

// Whether all rows of all of them begin, and end, where four elements can be moved at once.
template <typename... Tensors>
bool AreFours(const Tensors&... tensors) {
  return ((tensors.cols % 4 == 0 && tensors.row_stride % 4 == 0) && ...);
}

inline constexpr int kElementThreads = 256;

// A block for each kElementThreads * vector elements of a row, and for each row.
inline LaunchShape ElementGrid(const Tensor& out, int vector) {
  const int64_t a_block = int64_t{kElementThreads} * vector;
  const auto blocks = static_cast<unsigned>((out.cols + a_block - 1) / a_block);
  return {.grid = dim3(static_cast<unsigned>(out.rows), blocks), .block = dim3(kElementThreads)};
}

// The first column of this thread's elements in such a grid.
__device__ __forceinline__ int64_t ColumnOfThread(int vector) {
  return (int64_t{blockIdx.y} * kElementThreads + threadIdx.x) * vector;
}

}  // namespace weft::cuda
