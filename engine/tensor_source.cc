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
#include "engine/file_reader.h"
#include "kernels/half.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

std::vector<uint64_t> ShapeOf(const TensorSpec& spec) {
  if (spec.role != TensorSpec::Role::kMatrix) return {static_cast<uint64_t>(spec.rows)};
  return {static_cast<uint64_t>(spec.rows), static_cast<uint64_t>(spec.cols)};
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
  Word found = 0;  // not a bool, of which compilers make no vector
  for (size_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, data + i * sizeof(Word), sizeof(Word));
    found |= static_cast<Word>((word & exponent) == exponent);
  }
  return found == 0;
}

bool AllFinite(const std::byte* data, size_t count, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return AllFinite<uint32_t>(data, count, 0x7f800000);
    case DType::kBF16:
      return AllFinite<uint16_t>(data, count, 0x7f80);
    case DType::kF16:
      return AllFinite<uint16_t>(data, count, 0x7c00);
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

// Rows of a tensor's part in pieces that follow each other in memory: one where whole rows are wanted, else row by row.
// Calls piece(first element in the tensor, first element in the rows, count) until that fails.
template <typename Piece>
absl::Status ForEachPiece(const TensorSpec& spec, Range rows, Piece piece) {
  const int64_t first_row = spec.row_part.begin + rows.begin;
  if (spec.role != TensorSpec::Role::kMatrix) return piece(first_row, int64_t{0}, rows.count);
  const auto [first_col, num_cols] = spec.col_part;
  if (num_cols == spec.cols) return piece(first_row * spec.cols, int64_t{0}, rows.count * num_cols);
  for (int64_t row = 0; row < rows.count; ++row) {
    RETURN_IF_ERROR(piece((first_row + row) * spec.cols + first_col, row * num_cols, num_cols));
  }
  return absl::OkStatus();
}

class CheckpointTensors final : public TensorSource {
 public:
  // It holds all tensors that will be asked for.
  explicit CheckpointTensors(Checkpoint checkpoint) : checkpoint_(std::move(checkpoint)) {}

  DType dtype(const TensorSpec& tensor) const override { return *checkpoint_.Find(tensor.name)->info.type->dtype; }

  absl::Status Read(const TensorSpec& tensor, Range rows, std::byte* out) const override {
    const Checkpoint::Entry& entry = *checkpoint_.Find(tensor.name);
    const size_t width = DTypeBytes(*entry.info.type->dtype);
    FileReader reader(checkpoint_.file(entry));
    RETURN_IF_ERROR(ForEachPiece(tensor, rows, [&](int64_t from, int64_t to, int64_t count) {
      return reader.Read(checkpoint_.BeginOf(entry) + static_cast<uint64_t>(from) * width,
                         static_cast<size_t>(count) * width, out + static_cast<size_t>(to) * width);
    }));
    if (AllFinite(out, static_cast<size_t>(rows.count * RowWidth(tensor)), dtype(tensor))) return absl::OkStatus();
    return ModelFileError(checkpoint_.FileOf(entry), "nonfinite_weights",
                          absl::StrCat(tensor.name, " holds a NaN or infinity"));
  }

 private:
  const Checkpoint checkpoint_;
};

class MadeUpTensors final : public TensorSource {
 public:
  explicit MadeUpTensors(uint64_t seed) : seed_(seed) {}

  DType dtype(const TensorSpec&) const override { return DType::kBF16; }

  absl::Status Read(const TensorSpec& tensor, Range rows, std::byte* out) const override {
    const auto count_of_rows = static_cast<size_t>(rows.count * RowWidth(tensor));
    const absl::Span<uint16_t> values(reinterpret_cast<uint16_t*>(out), count_of_rows);
    if (tensor.role == TensorSpec::Role::kNorm) {
      std::fill(values.begin(), values.end(), F32ToBF16(1.0f));
      return absl::OkStatus();
    }
    return ForEachPiece(tensor, rows, [&](int64_t from, int64_t to, int64_t count) {
      FillDummyTensor(seed_, tensor.name, static_cast<uint64_t>(from),
                      values.subspan(static_cast<size_t>(to), static_cast<size_t>(count)));
      return absl::OkStatus();
    });
  }

 private:
  const uint64_t seed_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenTensors(const ModelDir& dir, const ModelConfig& config,
                                                          LoadMeter* meter) {
  ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(dir, meter));
  RETURN_IF_ERROR(CheckTensors(checkpoint, config));
  return std::make_unique<CheckpointTensors>(std::move(checkpoint));
}

std::unique_ptr<TensorSource> DummyTensors(uint64_t seed) { return std::make_unique<MadeUpTensors>(seed); }

int64_t RowWidth(const TensorSpec& tensor) {
  return tensor.role == TensorSpec::Role::kMatrix ? tensor.col_part.count : 1;
}

absl::StatusOr<HostTensor> AllocateTensor(const TensorSpec& tensor, DType dtype) {
  HostTensor memory;
  memory.dtype = dtype;
  memory.count = static_cast<size_t>(tensor.row_part.count * RowWidth(tensor));
  const size_t bytes = memory.count * DTypeBytes(dtype);
  memory.data.reset(new (std::nothrow) std::byte[bytes]);
  if (memory.data != nullptr) return memory;
  return absl::ResourceExhaustedError(absl::StrCat("no ", bytes, " bytes of host memory for tensor ", tensor.name));
}

absl::StatusOr<HostTensor> ReadTensor(const TensorSource& source, const TensorSpec& tensor) {
  ASSIGN_OR_RETURN(HostTensor memory, AllocateTensor(tensor, source.dtype(tensor)));
  RETURN_IF_ERROR(source.Read(tensor, {0, tensor.row_part.count}, memory.data.get()));
  return memory;
}

}  // namespace weft
