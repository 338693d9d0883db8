// Reads ranges of a ModelFile, and checks what it reads where the file was verified.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "engine/gmac.h"
#include "engine/model_file.h"

namespace weft {

// Borrows the file. Keeps the chunk that it read last, so that short ranges in ascending order (a part of each row of a
// matrix) read and check each chunk once. Used from one thread; a file may have any number of readers.
class FileReader {
 public:
  static constexpr size_t kChunkBytes = size_t{1} << 20;

  // Requires that the file was verified, if it has a manifest.
  explicit FileReader(const ModelFile& file);

  // As ModelFile::Read.
  absl::Status Read(uint64_t offset, size_t bytes, void* out);

 private:
  absl::Status ReadChunk(uint64_t chunk, size_t bytes, void* out);

  const ModelFile& file_;
  std::optional<Gmac> gmac_;       // of a verified file
  std::optional<uint64_t> chunk_;  // in buffer_
  std::string buffer_;
};

}  // namespace weft
