#include "engine/model_json.h"

#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "engine/model_file.h"

namespace weft {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 32;

// Looks at a text's events before a tree is built of it: depth and duplicate keys. Stops at the first fault.
class JsonChecker final : public nlohmann::json_sax<json> {
 public:
  const std::string& fault() const { return fault_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }

  bool start_object(size_t) override { return Enter(); }
  bool start_array(size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }

  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    fault_ = absl::StrCat("key ", Quoted(name), " stands twice");
    return false;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fault_ = absl::StrCat("no JSON at byte ", position);
    return false;
  }

 private:
  bool Enter() {
    keys_.emplace_back();
    if (keys_.size() <= kMaxDepth) return true;
    fault_ = absl::StrCat("deeper than ", kMaxDepth, " levels");
    return false;
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }

  std::vector<absl::flat_hash_set<std::string>> keys_;  // one set an open object or array
  std::string fault_;
};

}  // namespace

absl::StatusOr<json> ParseModelJson(absl::string_view file, absl::string_view text) {
  // The parser takes a NUL for the end of the text.
  if (text.find('\0') != absl::string_view::npos) return ModelFileError(file, "invalid_json", "holds a NUL byte");
  JsonChecker checker;
  if (!json::sax_parse(text.begin(), text.end(), &checker)) {
    return ModelFileError(file, "invalid_json", checker.fault());
  }
  json value = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return ModelFileError(file, "invalid_json", "not an object");
  return value;
}

const json* ModelJsonFields::Find(absl::string_view name) const {
  const auto it = object_.find(std::string(name));
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

absl::Status ModelJsonFields::Error(absl::string_view code, absl::string_view name, absl::string_view detail) const {
  return ModelFileError(file_, code, absl::StrCat(prefix_, name, " ", detail));
}

absl::StatusOr<int64_t> ModelJsonFields::Int(absl::string_view name, Range<int64_t> range) const {
  const json* field = Find(name);
  if (field == nullptr) return Error("missing_field", name, "is absent");
  if (!field->is_number_integer()) return Error("missing_field", name, "is not an integer");
  const bool representable = !field->is_number_unsigned() || field->get<uint64_t>() <= uint64_t{INT64_MAX};
  const int64_t value = representable ? field->get<int64_t>() : 0;
  if (!representable || value < range.low || value > range.high) {
    return Error("out_of_range", name, absl::StrCat("is ", field->dump(), ", not in ", range.low, " to ", range.high));
  }
  return value;
}

absl::StatusOr<int64_t> ModelJsonFields::Int(absl::string_view name, Range<int64_t> range, int64_t fallback) const {
  return Has(name) ? Int(name, range) : fallback;
}

absl::StatusOr<double> ModelJsonFields::Number(absl::string_view name, Range<double> range) const {
  const json* field = Find(name);
  if (field == nullptr) return Error("missing_field", name, "is absent");
  if (!field->is_number()) return Error("missing_field", name, "is not a number");
  const double value = field->get<double>();
  if (!(value >= range.low && value <= range.high)) {
    return Error("out_of_range", name, absl::StrCat("is ", value, ", not in ", range.low, " to ", range.high));
  }
  return value;
}

absl::StatusOr<double> ModelJsonFields::Number(absl::string_view name, Range<double> range, double fallback) const {
  return Has(name) ? Number(name, range) : fallback;
}

absl::StatusOr<bool> ModelJsonFields::Bool(absl::string_view name, bool fallback) const {
  const json* field = Find(name);
  if (field == nullptr) return fallback;
  if (!field->is_boolean()) return Error("missing_field", name, "is not a boolean");
  return field->get<bool>();
}

absl::StatusOr<std::string> ModelJsonFields::String(absl::string_view name) const {
  const json* field = Find(name);
  if (field == nullptr) return Error("missing_field", name, "is absent");
  if (!field->is_string()) return Error("missing_field", name, "is not a string");
  return field->get<std::string>();
}

}  // namespace weft
