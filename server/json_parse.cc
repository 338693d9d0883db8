#include "server/json_parse.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "kernels/status_macros.h"
#include "server/api_error.h"
#include "server/json_scan.h"

namespace weft {
namespace {

constexpr int kNumberOutOfRange = 406;  // the library's id for a literal such as 1e999

// A client's key may be shown back to it only where it can't be anything but a name.
absl::string_view KeyAsParam(const std::string& key) {
  const auto is_name_char = [](unsigned char c) { return absl::ascii_isalnum(c) || c == '_'; };
  const bool is_name = key.size() <= 64 && std::all_of(key.begin(), key.end(), is_name_char);
  return is_name ? absl::string_view(key) : absl::string_view();
}

// Builds the tree from the parser's events, and stops the parser at the first offence. Objects are appended to, so that
// an object of many keys costs linear time. Lives for one parse; nlohmann's parser and ScanJson bound the recursion.
class TreeBuilder final : public nlohmann::json_sax<Json> {
 public:
  absl::Status status() const { return status_; }
  Json TakeRoot() { return std::move(root_); }

  bool null() override { return Add(nullptr) != nullptr; }
  bool boolean(bool value) override { return Add(value) != nullptr; }
  bool number_integer(int64_t value) override { return Add(value) != nullptr; }
  bool number_unsigned(uint64_t value) override { return Add(value) != nullptr; }
  bool number_float(double value, const std::string&) override { return Add(value) != nullptr; }
  bool string(std::string& value) override { return Add(std::move(value)) != nullptr; }
  bool binary(Json::binary_t&) override { return Fail(BadRequest("invalid_json", "", "The body is not valid JSON.")); }

  bool start_object(size_t) override { return Open(Json::object()); }
  bool start_array(size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(std::string& key) override {
    Level& level = open_.back();
    if (level.keys.size() >= kMaxJsonKeys) {
      return Fail(BadRequest("too_many_items", "", "An object of the body has more than 4096 keys."));
    }
    if (!level.keys.insert(key).second) {
      return Fail(BadRequest("duplicate_key", KeyAsParam(key), "An object of the body has the same key twice."));
    }
    level.next_key = std::move(key);
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    if (error.id == kNumberOutOfRange) {
      return Fail(BadRequest("out_of_range", "", "The body has a number that is too large."));
    }
    return Fail(BadRequest("invalid_json", "", "The body is not valid JSON."));
  }

 private:
  struct Level {
    Json* value = nullptr;  // in root_; stays put, because only the innermost open value grows
    absl::flat_hash_set<std::string> keys;
    std::string next_key;
  };

  bool Fail(absl::Status status) {
    status_ = std::move(status);
    return false;
  }

  bool Open(Json value) {
    Json* const added = Add(std::move(value));
    if (added == nullptr) return false;
    open_.push_back(Level{added, {}, {}});
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  // The value where it now stands, or null after a failure.
  Json* Add(Json value) {
    if (++num_values_ > kMaxJsonValues) {
      Fail(BadRequest("too_many_items", "", "The body has more than 1048576 values."));
      return nullptr;
    }
    if (open_.empty()) return &(root_ = std::move(value));
    Level& level = open_.back();
    if (level.value->is_array()) {
      auto& items = level.value->get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    auto& members = level.value->get_ref<Json::object_t&>();
    // As the vector that it is: the map's own insertion would look for the key again, from the front.
    static_cast<Json::object_t::Container&>(members).emplace_back(std::move(level.next_key), std::move(value));
    return &members.back().second;
  }

  absl::Status status_;
  Json root_;
  std::vector<Level> open_;
  size_t num_values_ = 0;
};

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text) {
  RETURN_IF_ERROR(ScanJson(text));
  TreeBuilder builder;
  const bool parsed = Json::sax_parse(text.begin(), text.end(), &builder, nlohmann::detail::input_format_t::json);
  if (!builder.status().ok()) return builder.status();
  if (!parsed) return BadRequest("invalid_json", "", "The body is not valid JSON.");
  return builder.TakeRoot();
}

absl::StatusOr<Json> ParseJsonObject(absl::string_view text) {
  ASSIGN_OR_RETURN(Json json, ParseJson(text));
  if (!json.is_object()) return BadRequest("expected_object", "", "The body must be a JSON object.");
  return json;
}

std::string DumpJson(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace weft
