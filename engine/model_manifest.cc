#include "engine/model_manifest.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model_file.h"
#include "engine/model_json.h"
#include "engine/sha256.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

using nlohmann::json;

constexpr size_t kMaxFiles = 8192;

bool IsHexDigest(absl::string_view text) {
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return text.size() == 64 && std::all_of(text.begin(), text.end(), is_digit);
}

absl::Status Invalid(absl::string_view file, absl::string_view what) {
  return ModelFileError(file, "invalid_manifest", what);
}

absl::Status CheckFields(const std::string& file, const json& object, std::initializer_list<const char*> known,
                         absl::string_view what) {
  for (const auto& [name, value] : object.items()) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return Invalid(file, absl::StrCat(what, " has an unknown field ", Quoted(name)));
    }
  }
  for (const char* name : known) {
    if (!object.contains(name)) return Invalid(file, absl::StrCat(what, " has no field '", name, "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::pair<std::string, ModelManifest::Entry>> ReadEntry(const std::string& file, const json& object,
                                                                       size_t place) {
  const std::string what = absl::StrCat("files[", place, "]");
  if (!object.is_object()) return Invalid(file, absl::StrCat(what, " is not an object"));
  RETURN_IF_ERROR(CheckFields(file, object, {"path", "size", "sha256"}, what));
  const json& path = object["path"];
  if (!path.is_string() || !IsPlainFileName(path.get_ref<const std::string&>())) {
    return Invalid(file, absl::StrCat(what, ".path ", path.is_string() ? Quoted(path.get<std::string>()) : "",
                                      " is no plain name of a file in the model directory"));
  }
  const std::string& name = path.get_ref<const std::string&>();
  const json& size = object["size"];
  if (!size.is_number_unsigned() || size.get<uint64_t>() > uint64_t{INT64_MAX}) {
    return Invalid(file, absl::StrCat(Quoted(name), ": size is no number of bytes"));
  }
  const json& sha256 = object["sha256"];
  if (!sha256.is_string() || !IsHexDigest(sha256.get_ref<const std::string&>())) {
    return Invalid(file, absl::StrCat(Quoted(name), ": sha256 is not 64 hex digits in lower case"));
  }
  return std::pair(name, ModelManifest::Entry{size.get<uint64_t>(), sha256.get<std::string>()});
}

std::string PathOf(absl::string_view dir, absl::string_view name) { return absl::StrCat(dir, "/", name); }

absl::Status Mismatch(absl::string_view path, absl::string_view what) {
  return ModelFileError(path, "integrity_error", what);
}

}  // namespace

absl::StatusOr<ModelManifest> ModelManifest::Parse(std::string file, absl::string_view text) {
  ASSIGN_OR_RETURN(const json object, ParseModelJson(file, text));
  RETURN_IF_ERROR(CheckFields(file, object, {"version", "files"}, "the manifest"));
  if (object["version"] != 1) return Invalid(file, "version is not 1");
  const json& files = object["files"];
  if (!files.is_array() || files.empty() || files.size() > kMaxFiles) {
    return Invalid(file, absl::StrCat("files is not a list of 1 to ", kMaxFiles, " files"));
  }
  ModelManifest manifest;
  for (size_t i = 0; i < files.size(); ++i) {
    ASSIGN_OR_RETURN(auto entry, ReadEntry(file, files[i], i));
    const auto [it, added] = manifest.entries_.insert(std::move(entry));
    if (!added) return Invalid(file, absl::StrCat("files[", i, "].path ", Quoted(it->first), " stands twice"));
  }
  manifest.file_ = std::move(file);
  manifest.text_ = std::string(text);
  manifest.digest_ = Sha256Hex(text);
  return manifest;
}

const ModelManifest::Entry* ModelManifest::Find(absl::string_view name) const {
  const auto it = entries_.find(name);
  return it == entries_.end() ? nullptr : &it->second;
}

absl::StatusOr<const ModelManifest::Entry*> ModelManifest::Listed(absl::string_view dir, absl::string_view name) const {
  const Entry* const entry = Find(name);
  if (entry != nullptr) return entry;
  return Mismatch(PathOf(dir, name), absl::StrCat("is not in the manifest ", file_));
}

absl::Status ModelManifest::Absent(absl::string_view path) const {
  return Mismatch(path, absl::StrCat("is absent, but in the manifest ", file_));
}

absl::Status ModelManifest::CheckSize(const Entry& entry, absl::string_view path, uint64_t size) const {
  if (size == entry.size) return absl::OkStatus();
  return Mismatch(path, absl::StrCat("has ", size, " bytes; the manifest ", file_, " says ", entry.size));
}

absl::Status ModelManifest::CheckDigest(const Entry& entry, absl::string_view path, absl::string_view sha256) const {
  if (sha256 == entry.sha256) return absl::OkStatus();
  return Mismatch(path, absl::StrCat("has sha256 ", sha256, "; the manifest ", file_, " says ", entry.sha256));
}

absl::Status ModelManifest::Check(absl::string_view dir, absl::string_view name, const std::string* bytes) const {
  const std::string path = PathOf(dir, name);
  if (bytes == nullptr) return Find(name) == nullptr ? absl::OkStatus() : Absent(path);
  ASSIGN_OR_RETURN(const Entry* const entry, Listed(dir, name));
  RETURN_IF_ERROR(CheckSize(*entry, path, bytes->size()));
  return CheckDigest(*entry, path, Sha256Hex(*bytes));
}

}  // namespace weft
