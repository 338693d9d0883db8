#include "engine/model_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/file_reader.h"
#include "engine/sha256.h"
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

absl::StatusOr<ModelFile> ModelFile::Open(const ModelDir& dir, const std::string& name) {
  std::string path = Join(dir.path, name);
  if (!IsPlainFileName(name)) {
    return ModelFileError(dir.path, "invalid_file", absl::StrCat("no plain name: ", Quoted(name)));
  }
  const ModelManifest::Entry* entry = nullptr;
  if (dir.manifest != nullptr) {
    ASSIGN_OR_RETURN(entry, dir.manifest->Listed(dir.path, name));
  }
  // Without O_NONBLOCK, opening a FIFO would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    const bool is_absent = errno == ENOENT || errno == ENOTDIR;
    if (is_absent && entry != nullptr) return dir.manifest->Absent(path);
    if (is_absent) return absl::NotFoundError(absl::StrCat(path, ": not_found: no such file"));
    return IoError(path, std::strerror(errno));
  }
  ModelFile file(std::move(path), fd);
  struct stat info {};
  if (fstat(fd, &info) != 0) return IoError(file.path_, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return ModelFileError(file.path_, "invalid_file", "not a regular file");
  file.size_ = static_cast<uint64_t>(info.st_size);
  if (entry != nullptr) RETURN_IF_ERROR(dir.manifest->CheckSize(*entry, file.path_, file.size_));
  file.manifest_ = dir.manifest;
  file.entry_ = entry;
  return file;
}

ModelFile::ModelFile(ModelFile&& other) noexcept { *this = std::move(other); }

ModelFile& ModelFile::operator=(ModelFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(manifest_, other.manifest_);
  std::swap(entry_, other.entry_);
  std::swap(chunks_, other.chunks_);
  return *this;
}

ModelFile::~ModelFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status ModelFile::Verify(absl::FunctionRef<void(int64_t bytes)> on_bytes) {
  if (manifest_ == nullptr) return absl::OkStatus();
  Chunks chunks{RandomGmacKey(), {}};
  Sha256 hash;
  Gmac gmac(chunks.key);
  std::string buffer(FileReader::kChunkBytes, '\0');
  for (uint64_t begin = 0; begin < size_; begin += FileReader::kChunkBytes) {
    const auto bytes = static_cast<size_t>(std::min<uint64_t>(FileReader::kChunkBytes, size_ - begin));
    RETURN_IF_ERROR(ReadUnchecked(begin, bytes, buffer.data()));
    hash.Add({buffer.data(), bytes});
    gmac.Begin(chunks.tags.size());
    gmac.Add(buffer.data(), bytes);
    chunks.tags.push_back(gmac.End());
    on_bytes(static_cast<int64_t>(bytes));
  }
  RETURN_IF_ERROR(manifest_->CheckDigest(*entry_, path_, hash.Hex()));
  chunks_ = std::move(chunks);
  return absl::OkStatus();
}

absl::Status ModelFile::Read(uint64_t offset, size_t bytes, void* out) const {
  return FileReader(*this).Read(offset, bytes, out);
}

absl::Status ModelFile::ReadUnchecked(uint64_t offset, size_t bytes, void* out) const {
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

bool ModelFileExists(const ModelDir& dir, const std::string& name) {
  if (dir.manifest != nullptr && dir.manifest->Find(name) != nullptr) return true;
  struct stat info {};
  return stat(Join(dir.path, name).c_str(), &info) == 0;
}

absl::StatusOr<std::string> ReadModelFile(const ModelDir& dir, const std::string& name, uint64_t max_bytes) {
  ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(dir, name));
  if (file.size() > max_bytes) {
    return ModelFileError(file.path(), "too_large", absl::StrCat(file.size(), " bytes, at most ", max_bytes));
  }
  RETURN_IF_ERROR(file.Verify([](int64_t) {}));
  std::string text(static_cast<size_t>(file.size()), '\0');
  RETURN_IF_ERROR(file.Read(0, text.size(), text.data()));
  return text;
}

}  // namespace weft
