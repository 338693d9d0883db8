// JSON of a model directory, bounded and unambiguous, and typed access to its fields.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace weft {

// Parses an object of at most 32 levels. InvalidArgument invalid_json when it isn't one, and for a key that stands
// twice in one object: two readers could take different ones.
absl::StatusOr<nlohmann::json> ParseModelJson(absl::string_view file, absl::string_view text);

template <typename T>
struct Range {
  T low;
  T high;
};

// The fields of one JSON object. Borrows the object; a field that is null counts as absent. Errors are InvalidArgument
// "FILE: code: field ...": missing_field when it is absent or of another type, out_of_range beyond its range.
class ModelJsonFields {
 public:
  // `prefix`: how error messages name the object, "" or "rope_scaling.".
  ModelJsonFields(std::string file, std::string prefix, const nlohmann::json& object)
      : file_(std::move(file)), prefix_(std::move(prefix)), object_(object) {}

  // Null when the field is absent.
  const nlohmann::json* Find(absl::string_view name) const;
  bool Has(absl::string_view name) const { return Find(name) != nullptr; }

  absl::StatusOr<int64_t> Int(absl::string_view name, Range<int64_t> range) const;
  absl::StatusOr<int64_t> Int(absl::string_view name, Range<int64_t> range, int64_t fallback) const;
  absl::StatusOr<double> Number(absl::string_view name, Range<double> range) const;
  absl::StatusOr<double> Number(absl::string_view name, Range<double> range, double fallback) const;
  absl::StatusOr<bool> Bool(absl::string_view name, bool fallback) const;
  absl::StatusOr<std::string> String(absl::string_view name) const;

  // "FILE: code: prefix.name detail".
  absl::Status Error(absl::string_view code, absl::string_view name, absl::string_view detail) const;

 private:
  std::string file_;
  std::string prefix_;
  const nlohmann::json& object_;
};

}  // namespace weft
