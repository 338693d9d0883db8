#include "server/text/tokenizer_json.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

constexpr std::streamoff kMaxFileBytes = std::streamoff{64} << 20;
constexpr size_t kMaxDepth = 32;

const nlohmann::json& NullJson() {
  static const nlohmann::json null;
  return null;
}

// The first pass: nlohmann's event interface, whose parser doesn't recurse. Each method returns false to stop.
class JsonGuard : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return Open(); }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open(); }
  bool end_array() override { return Close(); }

  bool key(string_t& key) override {
    if (keys_.size() == 1) section_ = key;
    if (keys_.back().insert(key).second) return true;
    // In the vocabulary, the one object below an object of the top, a second key is a second id for a token.
    return Fail(section_ == "model" && keys_.size() == 3 ? "invalid_vocab" : "invalid", "a key occurs twice");
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return Fail(section_ == "added_tokens" ? "invalid_added_token" : "invalid",
                absl::StrCat("not JSON in UTF-8 at byte ", position));
  }

  // "CODE: FIELD: WHY"; empty if the file passed.
  const std::string& failure() const { return failure_; }

 private:
  bool Open() {
    if (keys_.size() == kMaxDepth) return Fail("invalid", absl::StrCat("nested deeper than ", kMaxDepth));
    keys_.emplace_back();
    return true;
  }

  bool Close() {
    keys_.pop_back();
    return true;
  }

  bool Fail(absl::string_view code, absl::string_view why) {
    failure_ = absl::StrCat(code, ": ", section_.empty() ? "(top level)" : section_, ": ", why);
    return false;
  }

  std::vector<absl::flat_hash_set<std::string>> keys_;  // of each open object; arrays have an empty set
  std::string section_;                                 // the key of the top-level object that is being read
  std::string failure_;
};

absl::StatusOr<std::string> ReadBounded(const std::string& path, absl::string_view name) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file.tellg();
  if (!file || size < 0) return absl::NotFoundError(absl::StrCat(name, ": not_found: can't open ", path));
  if (size > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": too_large: ", size, " bytes, at most ", kMaxFileBytes));
  }
  std::string bytes(static_cast<size_t>(size), '\0');
  file.seekg(0);
  if (!file.read(bytes.data(), size)) return absl::InvalidArgumentError(absl::StrCat(name, ": invalid: short read"));
  return bytes;
}

}  // namespace

absl::StatusOr<nlohmann::json> ReadTokenizerJson(const std::string& path, absl::string_view name,
                                                 const FileCheck& check) {
  const absl::StatusOr<std::string> read = ReadBounded(path, name);
  if (check != nullptr && (read.ok() || absl::IsNotFound(read.status()))) {
    RETURN_IF_ERROR(check(name, read.ok() ? &*read : nullptr));
  }
  RETURN_IF_ERROR(read.status());
  const std::string& bytes = *read;
  JsonGuard guard;
  if (!nlohmann::json::sax_parse(bytes, &guard)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", guard.failure()));
  }
  nlohmann::json tree = nlohmann::json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (!tree.is_object()) return absl::InvalidArgumentError(absl::StrCat(name, ": invalid: not an object"));
  return tree;
}

bool JsonNode::IsNull() const { return value_->is_null(); }

JsonNode JsonNode::Child(absl::string_view key) const {
  std::string path = path_.empty() ? std::string(key) : absl::StrCat(path_, ".", key);
  if (value_->is_object()) {
    const auto child = value_->find(std::string(key));
    if (child != value_->end()) return JsonNode(*child, std::move(path));
  }
  return JsonNode(NullJson(), std::move(path));
}

JsonNode JsonNode::Element(size_t i) const { return JsonNode((*value_)[i], absl::StrCat(path_, "[", i, "]")); }

absl::StatusOr<std::string> JsonNode::GetString(absl::string_view key) const {
  const JsonNode child = Child(key);
  if (!child.value().is_string()) return child.Refuse("invalid_component", "must be a string");
  return child.value().get<std::string>();
}

absl::StatusOr<std::string> JsonNode::GetString(absl::string_view key, absl::string_view fallback) const {
  if (Child(key).IsNull()) return std::string(fallback);
  return GetString(key);
}

absl::StatusOr<bool> JsonNode::GetBool(absl::string_view key, bool fallback) const {
  const JsonNode child = Child(key);
  if (child.IsNull()) return fallback;
  if (!child.value().is_boolean()) return child.Refuse("invalid_component", "must be true or false");
  return child.value().get<bool>();
}

absl::Status JsonNode::Refuse(absl::string_view code, absl::string_view why) const {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: ", code, ": ", path_, ": ", why));
}

}  // namespace weft
