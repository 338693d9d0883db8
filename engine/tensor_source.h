// Where the tensors of a model come from: a checkpoint, or nowhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/load_progress.h"
#include "engine/model_config.h"
#include "engine/model_dir.h"
#include "engine/tensor_list.h"
#include "kernels/tensor.h"

namespace weft {

// A rank's part of one tensor in host memory, dense: [row_part.count, col_part.count], or a vector.
struct HostTensor {
  std::unique_ptr<std::byte[]> data;
  size_t count = 0;  // elements
  DType dtype = DType::kF32;
};

// The tensors of a model. Any threads may ask, in any order; no more is read than what is asked for.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // How it stores the tensor's elements.
  virtual DType dtype(const TensorSpec& tensor) const = 0;

  // Fills `out` with some rows (elements, of a vector) of the tensor's part, dense. `rows` counts from row_part.begin.
  virtual absl::Status Read(const TensorSpec& tensor, Range rows, std::byte* out) const = 0;
};

// The tensors of a checkpoint, which holds exactly those of the whole model: LoadWeights documents the errors, which
// come from this call where a header shows them, and from Read where only the bytes do. `meter`: see Checkpoint::Open.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenTensors(const ModelDir& dir, const ModelConfig& config,
                                                          LoadMeter* meter = nullptr);

// Matrices and biases by FillDummyTensor; norms of ones.
std::unique_ptr<TensorSource> DummyTensors(uint64_t seed);

// Elements in a row of a tensor's part; 1 for a vector.
int64_t RowWidth(const TensorSpec& tensor);

// Memory for a tensor's part, not filled. ResourceExhausted where there is none.
absl::StatusOr<HostTensor> AllocateTensor(const TensorSpec& tensor, DType dtype);

// All of a tensor's part at once.
absl::StatusOr<HostTensor> ReadTensor(const TensorSource& source, const TensorSpec& tensor);

}  // namespace weft
