#include "engine/file_reader.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace weft {

FileReader::FileReader(const ModelFile& file) : file_(file) {
  CHECK(file.manifest_ == nullptr || file.chunks_.has_value(), "a file with a manifest is verified before it is read");
  if (file.chunks_.has_value()) gmac_.emplace(file.chunks_->key);
}

absl::Status FileReader::Read(uint64_t offset, size_t bytes, void* out) {
  if (!gmac_.has_value()) return file_.ReadUnchecked(offset, bytes, out);
  char* to = static_cast<char*>(out);
  while (bytes > 0) {
    const uint64_t chunk = offset / kChunkBytes;
    CHECK(chunk < file_.chunks_->tags.size(), "a range lies within its file");
    const uint64_t begin = chunk * kChunkBytes;
    const auto size = static_cast<size_t>(std::min<uint64_t>(kChunkBytes, file_.size() - begin));
    const auto skipped = static_cast<size_t>(offset - begin);
    CHECK(skipped < size, "a range lies within its file");
    const size_t count = std::min(bytes, size - skipped);
    if (count == size) {
      RETURN_IF_ERROR(ReadChunk(chunk, size, to));
    } else {
      if (chunk_ != chunk) {
        chunk_.reset();
        buffer_.resize(kChunkBytes);
        RETURN_IF_ERROR(ReadChunk(chunk, size, buffer_.data()));
        chunk_ = chunk;
      }
      std::memcpy(to, buffer_.data() + skipped, count);
    }
    to += count;
    offset += count;
    bytes -= count;
  }
  return absl::OkStatus();
}

absl::Status FileReader::ReadChunk(uint64_t chunk, size_t bytes, void* out) {
  RETURN_IF_ERROR(file_.ReadUnchecked(chunk * kChunkBytes, bytes, out));
  gmac_->Begin(chunk);
  gmac_->Add(out, bytes);
  if (gmac_->End() == file_.chunks_->tags[static_cast<size_t>(chunk)]) return absl::OkStatus();
  return ModelFileError(file_.path(), "integrity_error",
                        absl::StrCat("changed after it was checked, within 1 MiB of byte ", chunk * kChunkBytes));
}

}  // namespace weft
