#include "server/json_fields.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api_error.h"

namespace weft {

const Json* JsonFields::Find(absl::string_view name) const {
  const auto field = object_.find(std::string(name));
  return field == object_.end() || field->is_null() ? nullptr : &*field;
}

const Json* JsonFields::FindObject(absl::string_view name) {
  const Json* const field = Find(name);
  if (field == nullptr || field->is_object()) return field;
  Fail("wrong_type", name, "must be an object");
  return nullptr;
}

const Json* JsonFields::FindArray(absl::string_view name) {
  const Json* const field = Find(name);
  if (field == nullptr || field->is_array()) return field;
  Fail("wrong_type", name, "must be an array");
  return nullptr;
}

void JsonFields::Read(absl::string_view name, bool& out) {
  const Json* const field = Find(name);
  if (!ok() || field == nullptr) return;
  if (!field->is_boolean()) return Fail("wrong_type", name, "must be a boolean");
  out = field->get<bool>();
}

void JsonFields::Read(absl::string_view name, int64_t& out) {
  const Json* const field = Find(name);
  if (!ok() || field == nullptr) return;
  constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
  const bool too_large = (field->is_number_unsigned() && field->get<uint64_t>() > kMost) ||
                         (field->is_number_float() && std::abs(field->get<double>()) >= 0x1p63);
  if (too_large) return Fail("out_of_range", name, "must fit 64 bits");
  if (!field->is_number_integer()) return Fail("wrong_type", name, "must be an integer");
  out = field->get<int64_t>();
}

void JsonFields::Read(absl::string_view name, double& out) {
  const Json* const field = Find(name);
  if (!ok() || field == nullptr) return;
  if (!field->is_number()) return Fail("wrong_type", name, "must be a number");
  out = field->get<double>();
}

void JsonFields::Read(absl::string_view name, std::string& out) {
  const Json* const field = Find(name);
  if (!ok() || field == nullptr) return;
  if (!field->is_string()) return Fail("wrong_type", name, "must be a string");
  out = field->get_ref<const std::string&>();
}

std::string JsonFields::Param(absl::string_view name) const {
  return path_.empty() ? std::string(name) : absl::StrCat(path_, ".", name);
}

void JsonFields::Fail(absl::string_view code, absl::string_view name, absl::string_view message) {
  if (!ok()) return;
  const std::string param = Param(name);
  status_ = BadRequest(code, param, absl::StrCat(param, " ", message, "."));
}

void JsonFields::Fail(absl::Status status) {
  if (ok()) status_ = std::move(status);
}

}  // namespace weft
