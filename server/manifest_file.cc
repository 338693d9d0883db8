#include "server/manifest_file.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model_file.h"
#include "engine/sha256.h"
#include "kernels/status_macros.h"
#include "nlohmann/json.hpp"
#include "server/exit_status.h"
#include "server/operator_file.h"

namespace weft {
namespace {

constexpr absl::string_view kSmallFiles[] = {"config.json",         "generation_config.json",
                                             "tokenizer.json",      "tokenizer_config.json",
                                             "chat_template.jinja", "model.safetensors.index.json"};

std::vector<std::string> FilesToList(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const bool is_small = std::find(std::begin(kSmallFiles), std::end(kSmallFiles), name) != std::end(kSmallFiles);
    if (is_small || (absl::EndsWith(name, ".safetensors") && IsPlainFileName(name))) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<std::string> DescribeFile(const std::string& dir, const std::string& name) {
  ASSIGN_OR_RETURN(const ModelFile file, ModelFile::Open(dir, name));
  Sha256 hash;
  std::string piece;
  for (uint64_t begin = 0; begin < file.size(); begin += piece.size()) {
    piece.resize(static_cast<size_t>(std::min<uint64_t>(file.size() - begin, 1 << 20)));
    RETURN_IF_ERROR(file.Read(begin, piece.size(), piece.data()));
    hash.Add(piece);
  }
  const std::string path = nlohmann::json(name).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return absl::StrCat("  {\"path\": ", path, ", \"size\": ", file.size(), ", \"sha256\": \"", hash.Hex(), "\"}");
}

}  // namespace

absl::StatusOr<ModelDir> OpenModelDir(const ModelOptions& options) {
  if (options.manifest_file.empty()) return ModelDir(options.dir);
  ASSIGN_OR_RETURN(const std::string text, ReadOperatorFile("manifest", options.manifest_file));
  ASSIGN_OR_RETURN(ModelManifest manifest, ModelManifest::Parse(options.manifest_file, text));
  return ModelDir(options.dir, std::make_shared<const ModelManifest>(std::move(manifest)));
}

FileCheck CheckAgainst(const ModelDir& dir) {
  if (dir.manifest == nullptr) return nullptr;
  return [dir](absl::string_view name, const std::string* bytes) { return dir.manifest->Check(dir.path, name, bytes); };
}

absl::StatusOr<std::string> WriteManifest(const std::string& dir) {
  std::vector<std::string> lines;
  for (const std::string& name : FilesToList(dir)) {
    ASSIGN_OR_RETURN(std::string line, DescribeFile(dir, name));
    lines.push_back(std::move(line));
  }
  if (lines.empty()) return absl::NotFoundError(absl::StrCat(dir, ": not_found: no file of a model"));
  return absl::StrCat("{\"version\": 1, \"files\": [\n", absl::StrJoin(lines, ",\n"), "\n]}\n");
}

int ManifestMain(const std::vector<std::string>& args, std::ostream& out, std::ostream& err) {
  if (args.size() != 1 || absl::StartsWith(args[0], "-")) {
    err << "usage: weft manifest DIR > FILE\n";
    return kExitUsage;
  }
  const absl::StatusOr<std::string> manifest = WriteManifest(args[0]);
  if (!manifest.ok()) {
    err << "weft: " << manifest.status().message() << "\n";
    return kExitConfig;
  }
  out << *manifest;
  return kExitOk;
}

}  // namespace weft
