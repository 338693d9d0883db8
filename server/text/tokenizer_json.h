#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/text/file_check.h"

namespace weft {

// Reads a tokenizer's JSON file into a tree, after a pass that builds nothing and refuses what would be dangerous or
// ambiguous to build: more than 64 MiB, nesting deeper than 32, a key twice in one object, malformed JSON or UTF-8.
// `name` is what messages and `check` call the file. Errors: InvalidArgument, or NotFound if the file can't be opened;
// those of `check`.
absl::StatusOr<nlohmann::json> ReadTokenizerJson(const std::string& path, absl::string_view name,
                                                 const FileCheck& check = nullptr);

// A value of tokenizer.json and the way to it, so that each refusal names its field. Borrows the tree; a missing key
// reads as null. Every error is InvalidArgument with the text "tokenizer.json: CODE: FIELD: WHY", where CODE is the
// stable word that operators and tests look for.
class JsonNode {
 public:
  JsonNode(const nlohmann::json& value, std::string path) : value_(&value), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  bool IsNull() const;
  JsonNode Child(absl::string_view key) const;
  // The i-th element; requires an array with more than i elements.
  JsonNode Element(size_t i) const;

  // The value of `key` in this object; a wrong type, or an absent key where there is no fallback, is invalid_component.
  absl::StatusOr<std::string> GetString(absl::string_view key) const;
  absl::StatusOr<std::string> GetString(absl::string_view key, absl::string_view fallback) const;
  absl::StatusOr<bool> GetBool(absl::string_view key, bool fallback) const;

  absl::Status Refuse(absl::string_view code, absl::string_view why) const;

 private:
  const nlohmann::json* value_;
  std::string path_;
};

}  // namespace weft
