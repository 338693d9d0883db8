#include "engine/model_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

std::string Join(const std::string& dir, const std::string& name) { return absl::StrCat(dir, "/", name); }

absl::Status IoError(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(path, ": io_error: ", what));
}

}  // namespace

absl::Status ModelFileError(absl::string_view file, absl::string_view code, absl::string_view detail) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", code, ": ", detail));
}

std::string Quoted(absl::string_view untrusted) {
  constexpr size_t kMaxShown = 80;
  const bool cut = untrusted.size() > kMaxShown;
  return absl::StrCat("'", absl::CHexEscape(untrusted.substr(0, kMaxShown)), cut ? "...'" : "'");
}

bool IsPlainFileName(absl::string_view name) {
  constexpr size_t kMaxFileName = 255;
  return !name.empty() && name.size() <= kMaxFileName && name[0] != '.' &&
         name.find_first_of(absl::string_view("/\0", 2)) == absl::string_view::npos;
}

absl::StatusOr<ModelFile> ModelFile::Open(const std::string& dir, const std::string& name) {
  std::string path = Join(dir, name);
  if (!IsPlainFileName(name)) return ModelFileError(dir, "invalid_file", absl::StrCat("no plain name: ", Quoted(name)));
  // Without O_NONBLOCK, opening a FIFO would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      return absl::NotFoundError(absl::StrCat(path, ": not_found: no such file"));
    return IoError(path, std::strerror(errno));
  }
  ModelFile file(std::move(path), fd, 0);
  struct stat info {};
  if (fstat(fd, &info) != 0) return IoError(file.path_, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return ModelFileError(file.path_, "invalid_file", "not a regular file");
  file.size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

ModelFile::ModelFile(ModelFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

ModelFile& ModelFile::operator=(ModelFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

ModelFile::~ModelFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status ModelFile::Read(uint64_t offset, size_t bytes, void* out) const {
  char* to = static_cast<char*>(out);
  while (bytes > 0) {
    constexpr size_t kMaxRead = size_t{1} << 30;  // below the kernel's limit of 2 GiB a call
    const ssize_t got = pread(fd_, to, std::min(bytes, kMaxRead), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError(path_, std::strerror(errno));
    if (got == 0)
      return IoError(path_, absl::StrCat("the file ends at byte ", offset, ", shorter than when it opened"));
    to += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

bool ModelFileExists(const std::string& dir, const std::string& name) {
  struct stat info {};
  return stat(Join(dir, name).c_str(), &info) == 0;
}

absl::StatusOr<std::string> ReadModelFile(const std::string& dir, const std::string& name, uint64_t max_bytes) {
  ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(dir, name));
  if (file.size() > max_bytes) {
    return ModelFileError(file.path(), "too_large", absl::StrCat(file.size(), " bytes, at most ", max_bytes));
  }
  std::string text(static_cast<size_t>(file.size()), '\0');
  RETURN_IF_ERROR(file.Read(0, text.size(), text.data()));
  return text;
}

}  // namespace weft
