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

// One tensor in host memory, dense.
struct HostTensor {
  std::unique_ptr<std::byte[]> data;
  size_t count = 0;  // elements
  DType dtype = DType::kF32;
};

// Gives the tensors of a model one by one, in any order. What it borrows must outlive it.
using TensorSource = std::function<absl::StatusOr<HostTensor>(const TensorSpec&)>;

// The tensors of a checkpoint, which hold exactly those of `spec`: LoadWeights documents the errors, which come from
// this call where a header shows them, and from the source's calls where only the bytes do.
absl::StatusOr<TensorSource> OpenTensors(const std::string& model_dir, const ModelConfig& config,
                                         const ModelSpec& spec);

// Matrices and biases by FillDummyTensor; norms of ones.
TensorSource DummyTensors(uint64_t seed);

}  // namespace weft
