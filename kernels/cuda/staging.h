// Small arrays between host and device: as many as a step has, in one copy.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "kernels/tensor.h"

namespace weft::cuda {

// Device memory of at least so many bytes; what it held is lost where it has to grow.
cudaError_t Grow(Buffer& buffer, size_t bytes);

// One array of a Staging.
template <typename T>
struct Part {
  size_t offset = 0;
  size_t count = 0;
};

// Pinned host memory, and as much on the device. Parts are added first, then Send or Reserve gives them their memory,
// which is theirs until Clear. Whoever clears it has waited for the copies.
class Staging {
 public:
  void Clear();

  // Room for `count` elements, of no value.
  template <typename T>
  Part<T> Add(size_t count) {
    const Part<T> part{bytes_, count};
    bytes_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return part;
  }
  // Room for `values`, which Send reads.
  template <typename T>
  Part<T> Put(absl::Span<const T> values) {
    const Part<T> part = Add<T>(values.size());
    if (!values.empty()) sources_.push_back({values.data(), values.size() * sizeof(T), part.offset});
    return part;
  }

  cudaError_t Reserve();
  // Reserves, and copies what was put to the device.
  cudaError_t Send(cudaStream_t stream);
  // Copies all to the host, and waits for the device.
  cudaError_t Fetch(cudaStream_t stream);

  template <typename T>
  T* OnDevice(const Part<T>& part) const {
    return reinterpret_cast<T*>(device_.As<char>() + part.offset);
  }
  template <typename T>
  absl::Span<const T> OnHost(const Part<T>& part) const {
    return {reinterpret_cast<const T*>(host_.As<char>() + part.offset), part.count};
  }

 private:
  static constexpr size_t kAlignment = 16;
  struct Source {
    const void* data;
    size_t bytes, offset;
  };

  size_t bytes_ = 0;
  std::vector<Source> sources_;
  Buffer host_, device_;
};

}  // namespace weft::cuda
