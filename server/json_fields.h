// Typed reading of the known fields of a JSON object.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/json_parse.h"

namespace weft {

// Reads an object's fields into variables, so that a request's parser is a list of names. A field that is absent or
// null leaves its variable alone; one of the wrong type is an error `wrong_type` with the field's name as `param`.
// After the first error, which status() gives, the rest is skipped. Fields that nobody reads are ignored.
//
// Borrows the object. An integer is written as one: 10.0 is not, and 2^63 is out_of_range.
class JsonFields {
 public:
  // `path` goes before the names in errors: "messages[3]".
  explicit JsonFields(const Json& object, std::string path = "") : object_(object), path_(std::move(path)) {}

  void Read(absl::string_view name, bool& out);
  void Read(absl::string_view name, int64_t& out);
  void Read(absl::string_view name, double& out);
  void Read(absl::string_view name, std::string& out);

  template <typename T>
  void Read(absl::string_view name, std::optional<T>& out) {
    if (Find(name) == nullptr) return;
    T value{};
    Read(name, value);
    if (status_.ok()) out = std::move(value);
  }

  // The field as it is, or null where it is absent, null, or of another type (which is an error).
  const Json* Find(absl::string_view name) const;
  const Json* FindObject(absl::string_view name);
  const Json* FindArray(absl::string_view name);

  // `param` of the field: its name, after the path.
  std::string Param(absl::string_view name) const;

  // Notes an error about the field, unless there is one already.
  void Fail(absl::string_view code, absl::string_view name, absl::string_view message);
  void Fail(absl::Status status);

  const absl::Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }

 private:
  const Json& object_;
  const std::string path_;
  absl::Status status_;
};

}  // namespace weft
