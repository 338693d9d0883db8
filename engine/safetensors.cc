#include "engine/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/safetensors_events.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

constexpr uint64_t kLengthBytes = 8;

uint64_t LittleEndian64(const std::array<unsigned char, kLengthBytes>& bytes) {
  uint64_t value = 0;
  for (size_t i = kLengthBytes; i-- > 0;) value = value << 8 | bytes[i];
  return value;
}

// What a file with an impossible header length may be instead. Asked only then: a length may look like a magic number.
const char* OtherFormat(const std::array<unsigned char, kLengthBytes>& bytes) {
  const absl::string_view start(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (absl::StartsWith(start, "PK\x03\x04")) return "a zip archive, as torch.save writes";
  if (start[0] == '\x80' && start[1] >= 2 && start[1] <= 5) return "a pickle file";
  if (absl::StartsWith(start, "GGUF")) return "a GGUF file";
  return nullptr;
}

// The bytes that shape and element type ask for. Zero dimensions count as one for the overflow check, so that
// [2^63, 0] doesn't pass as an empty tensor.
absl::StatusOr<uint64_t> TensorBytes(absl::string_view file, const TensorInfo& tensor) {
  uint64_t bits = tensor.type->bits;
  bool empty = false;
  for (const uint64_t dim : tensor.shape) {
    empty = empty || dim == 0;
    if (__builtin_mul_overflow(bits, std::max<uint64_t>(dim, 1), &bits)) {
      return ModelFileError(file, "overflow", absl::StrCat("tensor ", Quoted(tensor.name), " has more than 2^64 bits"));
    }
  }
  if (empty) return uint64_t{0};
  if (bits % 8 != 0) {
    return ModelFileError(file, "misaligned", absl::StrCat("tensor ", Quoted(tensor.name), " ends within a byte"));
  }
  return bits / 8;
}

absl::Status CheckTensor(absl::string_view file, const TensorInfo& tensor) {
  if (tensor.begin > tensor.end) {
    return ModelFileError(file, "invalid_offset",
                          absl::StrCat("tensor ", Quoted(tensor.name), " ends before it begins"));
  }
  ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(file, tensor));
  if (bytes == tensor.end - tensor.begin) return absl::OkStatus();
  return ModelFileError(file, "invalid_tensor_info",
                        absl::StrCat("tensor ", Quoted(tensor.name), " of ", bytes, " bytes by shape and dtype has ",
                                     tensor.end - tensor.begin, " by data_offsets"));
}

// The tensors, sorted, must tile the data exactly: no gap, no overlap, nothing after the last.
absl::Status CheckTiling(absl::string_view file, const std::vector<TensorInfo>& tensors, uint64_t data_bytes) {
  uint64_t end = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.begin != end) {
      return ModelFileError(
          file, "invalid_offset",
          absl::StrCat("tensor ", Quoted(tensor.name), " begins at byte ", tensor.begin, ", not ", end));
    }
    end = tensor.end;
  }
  if (end == data_bytes) return absl::OkStatus();
  return ModelFileError(file, "incomplete_buffer", absl::StrCat("tensors end at byte ", end, " of ", data_bytes));
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file, absl::string_view json,
                                                         uint64_t data_bytes, const SafetensorsLimits& limits) {
  // The JSON parser would take a NUL for the end of the text, and skip a byte order mark.
  if (json.find('\0') != absl::string_view::npos) return ModelFileError(file, "invalid_header", "holds a NUL byte");
  const size_t start = json.find_first_not_of(" \t\r\n");
  if (start == absl::string_view::npos || json[start] != '{') {
    return ModelFileError(file, "invalid_header_start", "the header is not a JSON object");
  }
  SafetensorsEvents events(limits);
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &events)) {
    return ModelFileError(file, events.code(), events.detail());
  }
  SafetensorsHeader header;
  header.tensors = std::move(events.tensors());
  header.data_begin = kLengthBytes + json.size();
  for (const TensorInfo& tensor : header.tensors) RETURN_IF_ERROR(CheckTensor(file, tensor));
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  RETURN_IF_ERROR(CheckTiling(file, header.tensors, data_bytes));
  return header;
}

absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const ModelFile& file, const SafetensorsLimits& limits) {
  const std::string& path = file.path();
  if (file.size() <= kLengthBytes) {
    return ModelFileError(path, "header_too_small", absl::StrCat("the file has ", file.size(), " bytes"));
  }
  std::array<unsigned char, kLengthBytes> length_bytes{};
  RETURN_IF_ERROR(file.Read(0, length_bytes.size(), length_bytes.data()));
  const uint64_t length = LittleEndian64(length_bytes);
  const uint64_t rest = file.size() - kLengthBytes;
  if (length > limits.max_header_bytes || length > rest) {
    if (const char* format = OtherFormat(length_bytes); format != nullptr) {
      return ModelFileError(path, "invalid_header", absl::StrCat("the file is ", format));
    }
    const bool too_large = length > limits.max_header_bytes;
    return ModelFileError(path, too_large ? "header_too_large" : "invalid_header_length",
                          absl::StrCat("the header claims ", length, " bytes; the file has ", rest, ", the limit is ",
                                       limits.max_header_bytes));
  }
  std::string json(static_cast<size_t>(length), '\0');
  RETURN_IF_ERROR(file.Read(kLengthBytes, json.size(), json.data()));
  return ParseSafetensorsHeader(path, json, rest - length, limits);
}

}  // namespace weft
