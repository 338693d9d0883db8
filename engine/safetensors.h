// The header of a safetensors file, checked before anything is allocated for the tensors it describes.
//
// Format (huggingface/safetensors, README "Format"): 8 bytes N, little-endian; N bytes of JSON, name -> {dtype, shape,
// data_offsets}; the tensors' bytes, without a gap, to the end of the file. Stricter than the reference: a duplicate
// key is refused, and header, names, ranks and the number of tensors are bounded.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/model_file.h"
#include "kernels/dtype.h"

namespace weft {

// An element type of the format. Weft computes with some of them only.
struct StoredDType {
  const char* name;
  uint64_t bits;
  std::optional<DType> dtype;  // none: legal in a file, but nothing that Weft loads
};

struct TensorInfo {
  std::string name;
  const StoredDType* type = nullptr;  // into a static table
  std::vector<uint64_t> shape;        // outermost first; empty for a scalar
  uint64_t begin = 0;                 // first byte, counted from the start of the data
  uint64_t end = 0;                   // one past the last byte
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their bytes
  uint64_t data_begin = 0;          // where the data starts in the file
};

struct SafetensorsLimits {
  uint64_t max_header_bytes = uint64_t{16} << 20;
  size_t max_tensors = 200'000;
  size_t max_name_bytes = 512;
  size_t max_rank = 8;
};

// Errors: InvalidArgument "FILE: code: detail", codes of M01 to M15: header_too_small, header_too_large,
// invalid_header_length, invalid_header, invalid_header_start, header_too_complex, duplicate_key, invalid_metadata,
// invalid_tensor_info, invalid_offset, incomplete_buffer, overflow, unknown_dtype, misaligned, rank_too_large.
absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const ModelFile& file, const SafetensorsLimits& limits = {});

// The same for a header already in memory; `json` and `data_bytes` are what the file holds after its first 8 bytes.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file, absl::string_view json,
                                                         uint64_t data_bytes, const SafetensorsLimits& limits = {});

}  // namespace weft
