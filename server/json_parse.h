// JSON of clients into a tree: strict, bounded, without exceptions.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace weft {

using Json = nlohmann::ordered_json;

inline constexpr size_t kMaxJsonKeys = 4096;       // of one object
inline constexpr size_t kMaxJsonValues = 1 << 20;  // of the document: 16 bytes each once it is a tree

// The document, which passed ScanJson's checks too. Errors are ApiErrors: invalid_json, invalid_utf8, json_too_deep,
// too_many_items, duplicate_key (the key is `param`), out_of_range (a number that no double holds).
absl::StatusOr<Json> ParseJson(absl::string_view text);

// The same, where the document must be an object: else expected_object.
absl::StatusOr<Json> ParseJsonObject(absl::string_view text);

// The text of a document, on one line. Never fails: bytes that aren't UTF-8 become U+FFFD.
std::string DumpJson(const Json& json);

}  // namespace weft
