#include "engine/tensor_source.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "engine/checkpoint.h"
#include "engine/dummy_tensors.h"
#include "kernels/half.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

std::vector<uint64_t> ShapeOf(const TensorSpec& spec) {
  if (spec.role != TensorSpec::Role::kMatrix) return {static_cast<uint64_t>(spec.rows)};
  return {static_cast<uint64_t>(spec.rows), static_cast<uint64_t>(spec.cols)};
}

absl::StatusOr<HostTensor> Allocate(const TensorSpec& spec, DType dtype) {
  HostTensor tensor;
  tensor.dtype = dtype;
  tensor.count = static_cast<size_t>(spec.row_part.count);
  if (spec.role == TensorSpec::Role::kMatrix) tensor.count *= static_cast<size_t>(spec.col_part.count);
  const size_t bytes = tensor.count * DTypeBytes(dtype);
  tensor.data.reset(new (std::nothrow) std::byte[bytes]);
  if (tensor.data != nullptr) return tensor;
  return absl::ResourceExhaustedError(absl::StrCat("no ", bytes, " bytes of host memory for tensor ", spec.name));
}

const char* NameOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kBF16:
      return "BF16";
    case DType::kF16:
      return "F16";
    case DType::kI8:
      return "I8";
  }
  return "";
}

// A number is an infinity or a NaN when all bits of its exponent are set.
template <typename Word>
bool AllFinite(const std::byte* data, size_t count, Word exponent) {
  bool finite = true;
  for (size_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, data + i * sizeof(Word), sizeof(Word));
    finite &= (word & exponent) != exponent;
  }
  return finite;
}

bool AllFinite(const HostTensor& tensor) {
  switch (tensor.dtype) {
    case DType::kF32:
      return AllFinite<uint32_t>(tensor.data.get(), tensor.count, 0x7f800000);
    case DType::kBF16:
      return AllFinite<uint16_t>(tensor.data.get(), tensor.count, 0x7f80);
    case DType::kF16:
      return AllFinite<uint16_t>(tensor.data.get(), tensor.count, 0x7c00);
    case DType::kI8:
      break;
  }
  return true;
}

absl::Status CheckTensor(const Checkpoint& checkpoint, const ModelConfig& config, const TensorSpec& spec) {
  const Checkpoint::Entry* entry = checkpoint.Find(spec.name);
  if (entry == nullptr) {
    return ModelFileError(checkpoint.path(), "missing_tensor", absl::StrCat(spec.name, " is absent"));
  }
  const std::string& file = checkpoint.FileOf(*entry);
  const std::vector<uint64_t> expected = ShapeOf(spec);
  if (entry->info.shape != expected) {
    return ModelFileError(file, "wrong_shape",
                          absl::StrCat(spec.name, " is [", absl::StrJoin(entry->info.shape, ", "),
                                       "]; config.json implies [", absl::StrJoin(expected, ", "), "]"));
  }
  const StoredDType& type = *entry->info.type;
  const bool vector = spec.role != TensorSpec::Role::kMatrix;
  if (type.dtype.has_value() && (vector || *type.dtype == config.dtype)) return absl::OkStatus();
  return ModelFileError(file, "wrong_dtype",
                        absl::StrCat(spec.name, " is ", type.name, "; config.json implies ", NameOf(config.dtype)));
}

absl::Status CheckTensors(const Checkpoint& checkpoint, const ModelConfig& config) {
  const ModelSpec spec = ListTensors(config, WholeModel(config));
  absl::flat_hash_set<absl::string_view> expected;
  for (const TensorSpec* tensor : AllTensors(spec)) {
    RETURN_IF_ERROR(CheckTensor(checkpoint, config, *tensor));
    expected.insert(tensor->name);
  }
  for (const auto& [name, entry] : checkpoint.entries()) {
    if (expected.contains(name) || IsTolerated(name, config)) continue;
    return ModelFileError(
        checkpoint.FileOf(entry), "extra_tensor",
        absl::StrCat(Quoted(name), " has no place in a ", config.architecture, " of this configuration"));
  }
  return absl::OkStatus();
}

// A tensor's part in pieces that follow each other in memory: all of it where whole rows are wanted, else row by row.
// Calls piece(first element in the tensor, first element in the part, count) until that fails.
template <typename Piece>
absl::Status ForEachPiece(const TensorSpec& spec, Piece piece) {
  const auto [first_row, num_rows] = spec.row_part;
  if (spec.role != TensorSpec::Role::kMatrix) return piece(first_row, int64_t{0}, num_rows);
  const auto [first_col, num_cols] = spec.col_part;
  if (num_cols == spec.cols) return piece(first_row * spec.cols, int64_t{0}, num_rows * num_cols);
  for (int64_t row = 0; row < num_rows; ++row) {
    RETURN_IF_ERROR(piece((first_row + row) * spec.cols + first_col, row * num_cols, num_cols));
  }
  return absl::OkStatus();
}

absl::StatusOr<HostTensor> ReadTensor(const Checkpoint& checkpoint, const TensorSpec& spec) {
  const Checkpoint::Entry& entry = *checkpoint.Find(spec.name);
  ASSIGN_OR_RETURN(HostTensor tensor, Allocate(spec, *entry.info.type->dtype));
  const size_t width = DTypeBytes(tensor.dtype);
  RETURN_IF_ERROR(ForEachPiece(spec, [&](int64_t from, int64_t to, int64_t count) {
    return checkpoint.Read(entry, static_cast<uint64_t>(from) * width, static_cast<size_t>(count) * width,
                           tensor.data.get() + static_cast<size_t>(to) * width);
  }));
  if (AllFinite(tensor)) return tensor;
  return ModelFileError(checkpoint.FileOf(entry), "nonfinite_weights",
                        absl::StrCat(spec.name, " holds a NaN or infinity"));
}

absl::StatusOr<HostTensor> MakeDummy(uint64_t seed, const TensorSpec& spec) {
  ASSIGN_OR_RETURN(HostTensor tensor, Allocate(spec, DType::kBF16));
  const absl::Span<uint16_t> values(reinterpret_cast<uint16_t*>(tensor.data.get()), tensor.count);
  if (spec.role == TensorSpec::Role::kNorm) {
    std::fill(values.begin(), values.end(), F32ToBF16(1.0f));
    return tensor;
  }
  RETURN_IF_ERROR(ForEachPiece(spec, [&](int64_t from, int64_t to, int64_t count) {
    FillDummyTensor(seed, spec.name, static_cast<uint64_t>(from),
                    values.subspan(static_cast<size_t>(to), static_cast<size_t>(count)));
    return absl::OkStatus();
  }));
  return tensor;
}

}  // namespace

absl::StatusOr<TensorSource> OpenTensors(const std::string& model_dir, const ModelConfig& config) {
  ASSIGN_OR_RETURN(Checkpoint opened, Checkpoint::Open(model_dir));
  RETURN_IF_ERROR(CheckTensors(opened, config));
  // Shared by the copies of the source, as std::function demands one that can be copied.
  auto checkpoint = std::make_shared<const Checkpoint>(std::move(opened));
  return [checkpoint](const TensorSpec& tensor) { return ReadTensor(*checkpoint, tensor); };
}

TensorSource DummyTensors(uint64_t seed) {
  return [seed](const TensorSpec& tensor) { return MakeDummy(seed, tensor); };
}

}  // namespace weft
