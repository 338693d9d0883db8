// The data that kernels work on: views, owners, and the two indirections of a step (KvView, RowMap).
//
// Everything here is plain data. A view never owns; a Buffer always does. Pointers are device pointers: on the CPU
// backend that is host memory, on a GPU only that device's kernels may follow them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "kernels/dtype.h"

namespace weft {

// Device memory with one owner; freed on destruction.
class Buffer {
 public:
  Buffer() = default;
  Buffer(void* data, size_t bytes, std::function<void(void*)> free)
      : data_(data), bytes_(bytes), free_(std::move(free)) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(free_, other.free_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ != nullptr) free_(data_);
  }

  template <typename T>
  T* As() const {
    return static_cast<T*>(data_);
  }
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool empty() const { return data_ == nullptr; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  std::function<void(void*)> free_;
};

// A view of a row-major matrix [rows, cols]; rows may lie further apart than cols elements.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;  // elements

  template <typename T>
  T* Row(int64_t row) const {
    return static_cast<T*>(data) + row * row_stride;
  }
  // The view of `count` rows from `begin` on.
  Tensor Rows(int64_t begin, int64_t count) const {
    const size_t offset = static_cast<size_t>(begin * row_stride) * DTypeBytes(dtype);
    return {static_cast<char*>(data) + offset, dtype, count, cols, row_stride};
  }
};

inline Tensor DenseTensor(void* data, DType dtype, int64_t rows, int64_t cols) {
  return {data, dtype, rows, cols, cols};
}

// A matrix in host memory as a model file stores it: [rows, cols], dense, F32, F16 or BF16.
struct HostMatrix {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

// W and b of y = x W^T + b, in the layout its backend chose. Made by Backend::MakeWeight.
struct Weight {
  Buffer data;   // [out_features, in_features] in backend-private order, of `dtype`
  Buffer scale;  // kI8 only: float [out_features], W[n, k] = scale[n] * q[n, k]
  Buffer bias;   // float [out_features], or empty
  DType dtype = DType::kF32;
  int64_t out_features = 0;
  int64_t in_features = 0;
};

// One layer's paged keys and values.
struct KvView {
  void* keys = nullptr;    // [num_blocks, num_kv_heads, block_size, head_dim]
  void* values = nullptr;  // [num_blocks, num_kv_heads, block_size, head_dim]
  DType dtype = DType::kF32;
  int num_kv_heads = 0;
  int block_size = 0;  // tokens
  int head_dim = 0;
};

// Where each token of a step belongs: row r is one sequence's chunk, tokens row_begin[r] .. row_begin[r+1], and the
// token at absolute position p keeps its keys and values in block block_ids[block_begin[r] + p / block_size].
struct RowMap {
  const int32_t* positions = nullptr;    // [num_tokens] absolute, ascending by one within a row
  const int32_t* row_begin = nullptr;    // [num_rows + 1]
  const int32_t* block_begin = nullptr;  // [num_rows] where the row's block table begins in block_ids
  const int32_t* block_ids = nullptr;
  int num_rows = 0;
  int num_tokens = 0;
};

}  // namespace weft
