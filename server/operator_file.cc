#include "server/operator_file.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace weft {
namespace {

constexpr size_t kMaxBytes = 16 << 20;

}  // namespace

absl::StatusOr<std::string> ReadOperatorFile(absl::string_view what, const std::string& path) {
  const auto named = [&](absl::string_view problem) { return absl::StrCat(what, " ", path, ": ", problem); };
  std::error_code error;
  const bool is_regular = std::filesystem::is_regular_file(path, error);
  if (error) return absl::NotFoundError(named("cannot be read"));
  if (!is_regular) return absl::InvalidArgumentError(named("is no regular file"));
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(named("cannot be read"));
  std::string text(kMaxBytes + 1, '\0');  // it may grow while it is read
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return absl::NotFoundError(named("cannot be read"));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.empty()) return absl::NotFoundError(named("is empty"));
  if (text.size() > kMaxBytes) return absl::InvalidArgumentError(named("larger than 16 MiB"));
  return text;
}

}  // namespace weft
