// Matrices on their way from host memory to a device, which converts and quantises them.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/tensor.h"

namespace weft::cuda {

// Pieces go through a ring of pinned memory, so that the host fills in the next while one is under way and the device
// works on the one before. Used by one thread; the stream outlives this.
class WeightLoader {
 public:
  // Takes kRing pieces of pinned memory and of the device's. Error: ResourceExhausted.
  static absl::StatusOr<std::unique_ptr<WeightLoader>> Create(cudaStream_t stream);
  ~WeightLoader();

  // The rows of `parts`, one below the other, as `dtype`, into weight.data and weight.scale, which are as large as that
  // takes. Host memory is free again on return; the device may still be at work.
  absl::Status Load(absl::Span<const HostMatrix> parts, DType dtype, const Weight& weight);

 private:
  static constexpr size_t kRing = 4;
  static constexpr size_t kPieceBytes = size_t{8} << 20;  // a row that is longer makes pieces of its length

  struct Piece {
    Buffer host, device, floats;  // floats: for what is converted twice
    cudaEvent_t free = nullptr;
  };

  explicit WeightLoader(cudaStream_t stream) : stream_(stream) {}
  absl::Status LoadPiece(const HostMatrix& rows, DType dtype, const Weight& weight, int64_t first_row);
  absl::Status Store(Piece& piece, Tensor rows, DType dtype, const Weight& weight, int64_t first_row);

  cudaStream_t stream_;
  std::array<Piece, kRing> ring_;
  size_t turn_ = 0;
};

}  // namespace weft::cuda
