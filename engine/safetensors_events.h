// The grammar of a safetensors header as a handler of JSON events: no tree is built, whatever the text.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "engine/safetensors.h"
#include "nlohmann/json.hpp"

namespace weft {

// Collects the tensors of one header. Stops at the first fault, which then has a code word and a detail.
class SafetensorsEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit SafetensorsEvents(const SafetensorsLimits& limits) : limits_(limits) {}

  std::vector<TensorInfo>& tensors() { return tensors_; }
  const std::string& code() const { return code_; }
  const std::string& detail() const { return detail_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return Unexpected("a negative number"); }
  bool number_unsigned(number_unsigned_t value) override;
  bool number_float(number_float_t, const string_t&) override { return Unexpected("a number beyond 64-bit integers"); }
  bool string(string_t& value) override;
  bool binary(binary_t&) override { return Unexpected("binary data"); }
  bool start_object(size_t) override;
  bool key(string_t& name) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override;
  bool parse_error(size_t position, const std::string& token, const nlohmann::detail::exception& error) override;

 private:
  // Where the next event belongs; each place allows few events.
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets };
  enum Field { kDType, kShapeField, kOffsetsField, kNumFields, kUnknown = kNumFields };

  bool Fail(absl::string_view code, std::string detail);
  bool Unexpected(absl::string_view what);
  bool FieldKey(const std::string& name);

  const SafetensorsLimits& limits_;
  Place place_ = Place::kStart;
  std::string name_;        // the last key of the top level
  Field field_ = kUnknown;  // the last key of a tensor
  std::array<bool, kNumFields> seen_{};
  TensorInfo tensor_;  // being read
  std::vector<uint64_t> offsets_;
  std::vector<TensorInfo> tensors_;
  absl::flat_hash_set<std::string> names_;
  absl::flat_hash_set<std::string> metadata_names_;
  std::string code_;
  std::string detail_;
};

}  // namespace weft
