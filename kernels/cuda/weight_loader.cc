#include "kernels/cuda/weight_loader.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/ops.h"
#include "kernels/status_macros.h"

namespace weft::cuda {
namespace {

absl::Status GrowDevice(Buffer& buffer, size_t bytes) {
  if (buffer.bytes() >= bytes) return absl::OkStatus();
  void* data = nullptr;
  buffer = Buffer();
  RETURN_IF_ERROR(ToStatus(cudaMalloc(&data, bytes), absl::StrCat("no device memory left for ", bytes, " bytes")));
  buffer = Buffer(data, bytes, [](void* p) { cudaFree(p); });
  return absl::OkStatus();
}

absl::Status GrowHost(Buffer& buffer, size_t bytes) {
  if (buffer.bytes() >= bytes) return absl::OkStatus();
  void* data = nullptr;
  buffer = Buffer();
  RETURN_IF_ERROR(ToStatus(cudaMallocHost(&data, bytes), absl::StrCat("no pinned memory left for ", bytes, " bytes")));
  buffer = Buffer(data, bytes, [](void* p) { cudaFreeHost(p); });
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightLoader>> WeightLoader::Create(cudaStream_t stream) {
  auto loader = std::unique_ptr<WeightLoader>(new WeightLoader(stream));
  for (Piece& piece : loader->ring_) {
    RETURN_IF_ERROR(GrowHost(piece.host, kPieceBytes));
    RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&piece.free, cudaEventDisableTiming), "CUDA: event"));
    RETURN_IF_ERROR(ToStatus(cudaEventRecord(piece.free, stream), "CUDA: event"));
  }
  return loader;
}

WeightLoader::~WeightLoader() {
  cudaStreamSynchronize(stream_);
  for (const Piece& piece : ring_) {
    if (piece.free != nullptr) cudaEventDestroy(piece.free);
  }
}

absl::Status WeightLoader::Load(absl::Span<const HostMatrix> parts, DType dtype, const Weight& weight) {
  int64_t first_row = 0;
  for (const HostMatrix& part : parts) {
    const size_t row_bytes = static_cast<size_t>(part.cols) * DTypeBytes(part.dtype);
    const auto at_once = static_cast<int64_t>(std::max<size_t>(1, kPieceBytes / std::max<size_t>(1, row_bytes)));
    for (int64_t row = 0; row < part.rows; row += at_once) {
      const void* const data = static_cast<const char*>(part.data) + static_cast<size_t>(row) * row_bytes;
      const HostMatrix rows{data, part.dtype, std::min(at_once, part.rows - row), part.cols};
      RETURN_IF_ERROR(LoadPiece(rows, dtype, weight, first_row + row));
    }
    first_row += part.rows;
  }
  return absl::OkStatus();
}

absl::Status WeightLoader::LoadPiece(const HostMatrix& rows, DType dtype, const Weight& weight, int64_t first_row) {
  Piece& piece = ring_[turn_++ % kRing];
  RETURN_IF_ERROR(ToStatus(cudaEventSynchronize(piece.free), "CUDA: weights"));
  const size_t bytes = static_cast<size_t>(rows.rows * rows.cols) * DTypeBytes(rows.dtype);
  RETURN_IF_ERROR(GrowHost(piece.host, bytes));
  std::memcpy(piece.host.data(), rows.data, bytes);
  const bool is_as_stored = rows.dtype == dtype;
  const size_t offset = static_cast<size_t>(first_row * rows.cols) * DTypeBytes(dtype);
  void* to = weight.data.As<char>() + offset;
  if (!is_as_stored) {
    RETURN_IF_ERROR(GrowDevice(piece.device, bytes));
    to = piece.device.data();
  }
  RETURN_IF_ERROR(
      ToStatus(cudaMemcpyAsync(to, piece.host.data(), bytes, cudaMemcpyHostToDevice, stream_), "CUDA: weights"));
  if (!is_as_stored) {
    RETURN_IF_ERROR(Store(piece, DenseTensor(to, rows.dtype, rows.rows, rows.cols), dtype, weight, first_row));
  }
  return ToStatus(cudaEventRecord(piece.free, stream_), "CUDA: weights");
}

// `rows` are on the device; from one type of 16 bits to the other it is two steps, of which the first is exact.
absl::Status WeightLoader::Store(Piece& piece, Tensor rows, DType dtype, const Weight& weight, int64_t first_row) {
  if (dtype == DType::kI8) {
    return ToStatus(LaunchQuantizeRows(rows, weight.data.As<int8_t>() + first_row * rows.cols,
                                       weight.scale.As<float>() + first_row, stream_),
                    "CUDA: weights");
  }
  const Tensor stored =
      DenseTensor(weight.data.data(), dtype, weight.out_features, rows.cols).Rows(first_row, rows.rows);
  if (rows.dtype != DType::kF32 && dtype != DType::kF32) {
    RETURN_IF_ERROR(GrowDevice(piece.floats, static_cast<size_t>(rows.rows * rows.cols) * sizeof(float)));
    const Tensor floats = DenseTensor(piece.floats.data(), DType::kF32, rows.rows, rows.cols);
    RETURN_IF_ERROR(ToStatus(LaunchCast(rows, floats, stream_), "CUDA: weights"));
    rows = floats;
  }
  return ToStatus(LaunchCast(rows, stored, stream_), "CUDA: weights");
}

}  // namespace weft::cuda
