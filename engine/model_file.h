// The only door to the files of a model directory: data to be checked, never code to be run.
//
// Names are fixed by the caller or come from a shard index; a name is one path component, so none can leave the
// directory. Symbolic links are followed, because the Hugging Face cache is made of them: the directory is the
// operator's, and no client string ever becomes a name here. Only regular files open, so a FIFO can't hang a load.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/gmac.h"
#include "engine/model_dir.h"

namespace weft {

// InvalidArgument "FILE: code: detail", one line; `code` is a word of the bad-input catalogue.
absl::Status ModelFileError(absl::string_view file, absl::string_view code, absl::string_view detail);

// Text from a file, fit for an error message: quoted, escaped, at most 80 characters of it.
std::string Quoted(absl::string_view untrusted);

// True for one path component that is no hidden file: not empty, no '/', no leading '.', at most 255 bytes.
bool IsPlainFileName(absl::string_view name);

// A regular file open for reading by position. Its size is taken once, when it opens: a file that shrinks later gives
// an error, never a signal (no mmap). Any threads may read.
class ModelFile {
 public:
  // Requires IsPlainFileName(name). Errors: NotFound; InvalidArgument invalid_file when it is no regular file,
  // integrity_error when the directory's manifest doesn't list it, or lists another size; DataLoss io_error.
  static absl::StatusOr<ModelFile> Open(const ModelDir& dir, const std::string& name);

  ModelFile(ModelFile&& other) noexcept;
  ModelFile& operator=(ModelFile&& other) noexcept;
  ~ModelFile();

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }

  // Before a file of a directory with a manifest is read. Reads all of it once, for its digest, and remembers a tag of
  // each chunk, so that what Read gives later is what was checked here, whoever writes to the file meanwhile.
  // `on_bytes` is told of each chunk's bytes. Errors: integrity_error; io_error. Without a manifest it does nothing.
  absl::Status Verify(absl::FunctionRef<void(int64_t bytes)> on_bytes);

  // Fills out[0 .. bytes) from `offset` on. Errors: DataLoss io_error when the system fails or the file ends before
  // that; InvalidArgument integrity_error when the file is not what Verify read. See FileReader for many short reads.
  absl::Status Read(uint64_t offset, size_t bytes, void* out) const;

 private:
  friend class FileReader;
  // What Verify leaves: tags under a key that nobody else knows.
  struct Chunks {
    GmacKey key;
    std::vector<GmacTag> tags;
  };

  ModelFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  absl::Status ReadUnchecked(uint64_t offset, size_t bytes, void* out) const;

  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
  std::shared_ptr<const ModelManifest> manifest_;  // shared with the ModelDir; null: nothing to check
  const ModelManifest::Entry* entry_ = nullptr;    // in it
  std::optional<Chunks> chunks_;
};

// Whether it is there, or should be, because the manifest lists it: opening it then says what is wrong.
bool ModelFileExists(const ModelDir& dir, const std::string& name);

// The whole of a file of at most `max_bytes`; InvalidArgument too_large beyond that. Errors: those of Open and Verify.
absl::StatusOr<std::string> ReadModelFile(const ModelDir& dir, const std::string& name, uint64_t max_bytes);

}  // namespace weft
