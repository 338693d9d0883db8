// The only door to the files of a model directory: data to be checked, never code to be run.
//
// Names are fixed by the caller or come from a shard index; a name is one path component, so none can leave the
// directory. Symbolic links are followed, because the Hugging Face cache is made of them: the directory is the
// operator's, and no client string ever becomes a name here. Only regular files open, so a FIFO can't hang a load.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft {

// InvalidArgument "FILE: code: detail", one line; `code` is a word of the bad-input catalogue.
absl::Status ModelFileError(absl::string_view file, absl::string_view code, absl::string_view detail);

// Text from a file, fit for an error message: quoted, escaped, at most 80 characters of it.
std::string Quoted(absl::string_view untrusted);

// True for one path component that is no hidden file: not empty, no '/', no leading '.', at most 255 bytes.
bool IsPlainFileName(absl::string_view name);

// A regular file open for reading by position. Its size is taken once, when it opens: a file that shrinks later gives
// an error, never a signal (no mmap).
class ModelFile {
 public:
  // Requires IsPlainFileName(name). Errors: NotFound; InvalidArgument invalid_file when it is no regular file;
  // DataLoss io_error.
  static absl::StatusOr<ModelFile> Open(const std::string& dir, const std::string& name);

  ModelFile(ModelFile&& other) noexcept;
  ModelFile& operator=(ModelFile&& other) noexcept;
  ~ModelFile();

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }

  // Fills out[0 .. bytes) from `offset` on. DataLoss io_error when the system fails or the file ends before that.
  absl::Status Read(uint64_t offset, size_t bytes, void* out) const;

 private:
  ModelFile(std::string path, int fd, uint64_t size) : path_(std::move(path)), fd_(fd), size_(size) {}

  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

bool ModelFileExists(const std::string& dir, const std::string& name);

// The whole of a file of at most `max_bytes`; InvalidArgument too_large beyond that.
absl::StatusOr<std::string> ReadModelFile(const std::string& dir, const std::string& name, uint64_t max_bytes);

}  // namespace weft
