#include "server/model_fingerprint.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/isa.h"
#include "server/version.h"

namespace weft {
namespace {

constexpr size_t kNumDigits = 16;

std::string Digest(absl::string_view text) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

std::string TextOf(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// A line a file, in the order of their names.
std::string DescribeFiles(const std::string& dir) {
  std::vector<std::string> lines;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    if (!entry.is_regular_file(error)) continue;
    const std::string name = entry.path().filename().string();
    if (absl::EndsWith(name, ".safetensors")) {
      lines.push_back(absl::StrCat(name, " ", entry.file_size(error)));
    } else if (absl::EndsWith(name, ".json") || absl::EndsWith(name, ".jinja")) {
      lines.push_back(absl::StrCat(name, " ", Digest(TextOf(entry.path()))));
    }
  }
  std::sort(lines.begin(), lines.end());
  std::string text;
  for (const std::string& line : lines) absl::StrAppend(&text, line, "\n");
  return text;
}

}  // namespace

std::string ModelFingerprint(const ModelOptions& model, const ModelDir& files) {
  const int dtype = model.weight_dtype.has_value() ? static_cast<int>(*model.weight_dtype) : -1;
  const std::string what =
      absl::StrCat(Version(), "\n", std::string(cpu::IsaName(cpu::DetectIsa())), "\n", dtype, "\n",
                   static_cast<int>(model.load_format), "\n",
                   files.manifest != nullptr ? files.manifest->digest() : DescribeFiles(files.path));
  return Digest(what).substr(0, kNumDigits);
}

}  // namespace weft
