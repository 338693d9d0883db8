#include "engine/safetensors_events.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace weft {
namespace {

constexpr char kMetadataKey[] = "__metadata__";
constexpr const char* kFieldNames[] = {"dtype", "shape", "data_offsets"};

// The element types of the format, safetensors 0.6.
constexpr StoredDType kStoredDTypes[] = {
    {"BOOL", 8, std::nullopt},    {"F4", 4, std::nullopt},   {"F6_E2M3", 6, std::nullopt}, {"F6_E3M2", 6, std::nullopt},
    {"U8", 8, std::nullopt},      {"I8", 8, std::nullopt},   {"F8_E5M2", 8, std::nullopt}, {"F8_E4M3", 8, std::nullopt},
    {"F8_E8M0", 8, std::nullopt}, {"I16", 16, std::nullopt}, {"U16", 16, std::nullopt},    {"F16", 16, DType::kF16},
    {"BF16", 16, DType::kBF16},   {"I32", 32, std::nullopt}, {"U32", 32, std::nullopt},    {"F32", 32, DType::kF32},
    {"C64", 64, std::nullopt},    {"F64", 64, std::nullopt}, {"I64", 64, std::nullopt},    {"U64", 64, std::nullopt},
};

const StoredDType* FindStoredDType(const std::string& name) {
  for (const StoredDType& type : kStoredDTypes) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

}  // namespace

bool SafetensorsEvents::Fail(absl::string_view code, std::string detail) {
  code_ = std::string(code);
  detail_ = std::move(detail);
  return false;
}

// A value where the grammar has no place for it.
bool SafetensorsEvents::Unexpected(absl::string_view what) {
  switch (place_) {
    case Place::kStart:
      return Fail("invalid_header_start", absl::StrCat("is ", what, ", not an object"));
    case Place::kMetadata:
      return Fail("invalid_metadata", absl::StrCat("__metadata__ holds ", what, ", not only strings"));
    case Place::kOffsets:
      return Fail("invalid_offset", absl::StrCat("tensor ", Quoted(name_), " has ", what, " in data_offsets"));
    case Place::kTensor:
      if (field_ == kUnknown)
        return Fail("invalid_header", absl::StrCat("tensor ", Quoted(name_), " has an unknown field"));
      return Fail("invalid_header",
                  absl::StrCat("tensor ", Quoted(name_), " has ", what, " for ", kFieldNames[field_]));
    case Place::kTop:
    case Place::kShape:
      break;
  }
  return Fail("invalid_header", absl::StrCat(Quoted(name_), " holds ", what));
}

bool SafetensorsEvents::number_unsigned(number_unsigned_t value) {
  if (place_ == Place::kShape) {
    if (tensor_.shape.size() == limits_.max_rank) {
      return Fail("rank_too_large",
                  absl::StrCat("tensor ", Quoted(name_), " has more than ", limits_.max_rank, " dimensions"));
    }
    tensor_.shape.push_back(value);
    return true;
  }
  if (place_ == Place::kOffsets && offsets_.size() < 2) {
    offsets_.push_back(value);
    return true;
  }
  return Unexpected("an unexpected number");
}

bool SafetensorsEvents::string(string_t& value) {
  if (place_ == Place::kMetadata) return true;
  if (place_ != Place::kTensor || field_ != kDType) return Unexpected("a string");
  tensor_.type = FindStoredDType(value);
  if (tensor_.type != nullptr) return true;
  return Fail("unknown_dtype", absl::StrCat("tensor ", Quoted(name_), " has dtype ", Quoted(value)));
}

bool SafetensorsEvents::start_object(size_t) {
  switch (place_) {
    case Place::kStart:
      place_ = Place::kTop;
      return true;
    case Place::kTop:
      place_ = name_ == kMetadataKey ? Place::kMetadata : Place::kTensor;
      tensor_ = TensorInfo{};
      offsets_.clear();
      seen_.fill(false);
      return true;
    case Place::kMetadata:
      return Unexpected("an object");
    case Place::kTensor:
    case Place::kShape:
    case Place::kOffsets:
      break;
  }
  return Fail("header_too_complex", absl::StrCat("tensor ", Quoted(name_), " holds a nested object"));
}

bool SafetensorsEvents::FieldKey(const std::string& name) {
  for (size_t i = 0; i < kNumFields; ++i) {
    if (name != kFieldNames[i]) continue;
    field_ = static_cast<Field>(i);
    if (!std::exchange(seen_[i], true)) return true;
    return Fail("duplicate_key", absl::StrCat("tensor ", Quoted(name_), " has two fields ", name));
  }
  field_ = kUnknown;  // the value that follows says how wrong it is
  return true;
}

bool SafetensorsEvents::key(string_t& name) {
  if (place_ == Place::kTensor) return FieldKey(name);
  if (name.size() > limits_.max_name_bytes) {
    return Fail("header_too_complex", absl::StrCat("name ", Quoted(name), " has ", name.size(), " bytes"));
  }
  absl::flat_hash_set<std::string>& names = place_ == Place::kMetadata ? metadata_names_ : names_;
  if (!names.insert(name).second) return Fail("duplicate_key", absl::StrCat(Quoted(name), " stands twice"));
  if (place_ == Place::kTop) name_ = name;
  return true;
}

bool SafetensorsEvents::end_object() {
  if (place_ != Place::kTensor) {
    place_ = Place::kTop;
    return true;
  }
  for (size_t i = 0; i < kNumFields; ++i) {
    if (!seen_[i]) return Fail("invalid_header", absl::StrCat("tensor ", Quoted(name_), " has no ", kFieldNames[i]));
  }
  if (tensors_.size() == limits_.max_tensors) {
    return Fail("header_too_complex", absl::StrCat("more than ", limits_.max_tensors, " tensors"));
  }
  tensor_.name = name_;
  tensor_.begin = offsets_[0];
  tensor_.end = offsets_[1];
  tensors_.push_back(std::move(tensor_));
  place_ = Place::kTop;
  return true;
}

bool SafetensorsEvents::start_array(size_t) {
  if (place_ == Place::kTensor && field_ == kShapeField) {
    place_ = Place::kShape;
    return true;
  }
  if (place_ == Place::kTensor && field_ == kOffsetsField) {
    place_ = Place::kOffsets;
    return true;
  }
  if (place_ == Place::kShape || place_ == Place::kOffsets || (place_ == Place::kTensor && field_ == kUnknown)) {
    return Fail("header_too_complex", absl::StrCat("tensor ", Quoted(name_), " holds a nested list"));
  }
  return Unexpected("a list");
}

bool SafetensorsEvents::end_array() {
  if (place_ == Place::kOffsets && offsets_.size() != 2) {
    return Fail("invalid_offset", absl::StrCat("tensor ", Quoted(name_), " has not two data_offsets"));
  }
  place_ = Place::kTensor;
  return true;
}

bool SafetensorsEvents::parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) {
  return Fail("invalid_header", absl::StrCat("no JSON in UTF-8 at byte ", position));
}

}  // namespace weft
