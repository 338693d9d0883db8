// cuBLASLt, for linears of many rows. Found when it is opened, so that the binary starts where it isn't.
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/matmul.h"

namespace weft::cuda {

// A device's handle with its plans: the algorithm for a product is asked for once, and kept. Used by one thread at a
// time.
class CublasLt {
 public:
  // For the calling thread's device. Errors: Unavailable where there is no library, or none of this version.
  static absl::StatusOr<std::unique_ptr<CublasLt>> Open();
  ~CublasLt();

  // Enqueues D = A^T B. Errors: Unimplemented where the library has no kernel for it; nothing has happened then.
  absl::Status Run(const Matmul& matmul, const void* a, const void* b, void* d, cudaStream_t stream);

 private:
  struct Library;
  explicit CublasLt(std::unique_ptr<Library> library);

  std::unique_ptr<Library> library_;
};

}  // namespace weft::cuda
