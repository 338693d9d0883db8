#include "kernels/cuda/staging.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace weft::cuda {
namespace {

constexpr size_t kLeastBytes = 64 << 10;

}  // namespace

cudaError_t Grow(Buffer& buffer, size_t bytes) {
  if (buffer.bytes() >= bytes) return cudaSuccess;
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaSuccess) buffer = Buffer(data, bytes, [](void* p) { cudaFree(p); });
  return error;
}

void Staging::Clear() {
  bytes_ = 0;
  sources_.clear();
}

cudaError_t Staging::Reserve() {
  if (host_.bytes() >= bytes_) return cudaSuccess;
  // Lists of tokens grow with each step: not each of these should allocate.
  const size_t bytes = std::bit_ceil(std::max(bytes_, kLeastBytes));
  cudaError_t error = Grow(device_, bytes);
  if (error != cudaSuccess) return error;
  void* data = nullptr;
  error = cudaMallocHost(&data, bytes);
  if (error == cudaSuccess) host_ = Buffer(data, bytes, [](void* p) { cudaFreeHost(p); });
  return error;
}

cudaError_t Staging::Send(cudaStream_t stream) {
  const cudaError_t error = Reserve();
  if (error != cudaSuccess || bytes_ == 0) return error;
  for (const Source& source : sources_) std::memcpy(host_.As<char>() + source.offset, source.data, source.bytes);
  return cudaMemcpyAsync(device_.data(), host_.data(), bytes_, cudaMemcpyHostToDevice, stream);
}

cudaError_t Staging::Fetch(cudaStream_t stream) {
  if (bytes_ > 0) {
    const cudaError_t error = cudaMemcpyAsync(host_.data(), device_.data(), bytes_, cudaMemcpyDeviceToHost, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaStreamSynchronize(stream);
}

}  // namespace weft::cuda
