// Where the tensors of a model come from: a checkpoint, or nowhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/model_config.h"
#include "engine/tensor_list.h"
#include "kernels/tensor.h"

namespace weft {

// A rank's part of one tensor in host memory, dense: [row_part.count, col_part.count], or a vector.
struct HostTensor {
  std::unique_ptr<std::byte[]> data;
  size_t count = 0;  // elements
  DType dtype = DType::kF32;
};

// Gives the tensors of a model one by one, in any order, reading no more than the part that is asked for. What it
// borrows must outlive it.
using TensorSource = std::function<absl::StatusOr<HostTensor>(const TensorSpec&)>;

// The tensors of a checkpoint, which holds exactly those of the whole model: LoadWeights documents the errors, which
// come from this call where a header shows them, and from the source's calls where only the bytes do.
absl::StatusOr<TensorSource> OpenTensors(const std::string& model_dir, const ModelConfig& config);

// Matrices and biases by FillDummyTensor; norms of ones.
TensorSource DummyTensors(uint64_t seed);

}  // namespace weft
