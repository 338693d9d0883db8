// In place of the class that calls cuBLASLt: the same products, from the same arguments, in plain loops.
#include "kernels/cuda/cublas_lt.h"

#include <atomic>
#include <utility>

#include "kernels/half.h"
#include "tests/kernels/cuda_on_cpu/counters.h"

namespace weft::cuda {
namespace {

std::atomic<int64_t> num_matmuls = 0;

double At(const ColumnMajor& matrix, const void* data, int64_t row, int64_t col) {
  const int64_t i = col * matrix.ld + row;
  switch (matrix.element) {
    case Element::kF32:
      return static_cast<const float*>(data)[i];
    case Element::kBF16:
      return BF16ToF32(static_cast<const uint16_t*>(data)[i]);
    case Element::kF16:
      return F16ToF32(static_cast<const uint16_t*>(data)[i]);
    case Element::kI8:
      return static_cast<const int8_t*>(data)[i];
    case Element::kI32:
      return static_cast<const int32_t*>(data)[i];
  }
  return 0;
}

void Set(const ColumnMajor& matrix, void* data, int64_t row, int64_t col, double value) {
  const int64_t i = col * matrix.ld + row;
  switch (matrix.element) {
    case Element::kF32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case Element::kBF16:
      static_cast<uint16_t*>(data)[i] = F32ToBF16(static_cast<float>(value));
      return;
    case Element::kF16:
      static_cast<uint16_t*>(data)[i] = F32ToF16(static_cast<float>(value));
      return;
    case Element::kI8:
      return;
    case Element::kI32:
      static_cast<int32_t*>(data)[i] = static_cast<int32_t>(value);
      return;
  }
}

void Multiply(const Matmul& matmul, const void* a, const void* b, void* d) {
  for (int64_t col = 0; col < matmul.d.cols; ++col) {
    for (int64_t row = 0; row < matmul.d.rows; ++row) {
      double sum = 0;
      for (int64_t k = 0; k < matmul.a.rows; ++k) sum += At(matmul.a, a, k, row) * At(matmul.b, b, k, col);
      Set(matmul.d, d, row, col, sum);
    }
  }
}

}  // namespace

int64_t NumMatmuls() { return num_matmuls; }

struct CublasLt::Library {};

CublasLt::CublasLt(std::unique_ptr<Library> library) : library_(std::move(library)) {}
CublasLt::~CublasLt() = default;

absl::StatusOr<std::unique_ptr<CublasLt>> CublasLt::Open() {
  return std::unique_ptr<CublasLt>(new CublasLt(std::make_unique<Library>()));
}

absl::Status CublasLt::Run(const Matmul& matmul, const void* a, const void* b, void* d, cudaStream_t stream) {
  ++num_matmuls;
  const cudaError_t error = Enqueue(stream, [=] {
    Multiply(matmul, a, b, d);
    return cudaSuccess;
  });
  return error == cudaSuccess ? absl::OkStatus() : absl::InternalError(cudaGetErrorString(error));
}

}  // namespace weft::cuda
