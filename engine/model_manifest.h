// What the operator says that the files of a model directory are: their names, sizes and SHA-256 digests.
//
//   {"version": 1, "files": [{"path": "config.json", "size": 651, "sha256": "0f3a...64 hex digits"}, ...]}
//
// It belongs where whoever may change the model can't change it. `weft manifest DIR` writes one.
#pragma once

#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft {

// Immutable; any thread may ask.
class ModelManifest {
 public:
  struct Entry {
    uint64_t size = 0;   // bytes
    std::string sha256;  // 64 hex digits, lower case
  };

  // `file`: what errors call it. InvalidArgument "FILE: invalid_manifest: what" for anything but an object of exactly
  // these fields, with 1 to 8,192 files, each a plain name (IsPlainFileName) that stands once; invalid_json.
  static absl::StatusOr<ModelManifest> Parse(std::string file, absl::string_view text);

  const std::string& file() const { return file_; }
  const std::string& text() const { return text_; }  // what was parsed
  // SHA-256 of the manifest itself, in hex: names the whole model.
  const std::string& digest() const { return digest_; }

  // Null when it isn't listed.
  const Entry* Find(absl::string_view name) const;

  // Whether DIR/name is what the manifest says: `bytes` are all of it, null when there is no such file. InvalidArgument
  // "DIR/name: integrity_error: what" for a file that isn't listed, a listed one that is absent, another size or
  // digest.
  absl::Status Check(absl::string_view dir, absl::string_view name, const std::string* bytes) const;

  // The same in steps, for a file too large to be held.
  absl::StatusOr<const Entry*> Listed(absl::string_view dir, absl::string_view name) const;
  absl::Status CheckSize(const Entry& entry, absl::string_view path, uint64_t size) const;
  absl::Status CheckDigest(const Entry& entry, absl::string_view path, absl::string_view sha256) const;
  absl::Status Absent(absl::string_view path) const;

 private:
  ModelManifest() = default;

  std::string file_;
  std::string text_;
  std::string digest_;
  absl::flat_hash_map<std::string, Entry> entries_;
};

}  // namespace weft
