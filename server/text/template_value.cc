#include "server/text/template_value.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace weft {

TemplateValue TemplateValue::List(std::vector<TemplateValue> items) {
  return Sequence(std::make_shared<const TemplateSequence>(TemplateSequence::Kind::kList, std::move(items)));
}

TemplateValue TemplateValue::Tuple(std::vector<TemplateValue> items) {
  return Sequence(std::make_shared<const TemplateSequence>(TemplateSequence::Kind::kTuple, std::move(items)));
}

TemplateValue TemplateValue::Dict(TemplateDict dict) {
  return TemplateValue(Data(std::make_shared<const TemplateDict>(std::move(dict))));
}

namespace {

template <typename T, typename Data>
T* SharedOrNull(const Data& data) {
  const auto* held = std::get_if<std::shared_ptr<T>>(&data);
  return held ? held->get() : nullptr;
}

template <typename T, typename Data>
T BorrowedOrNull(const Data& data) {
  const T* held = std::get_if<T>(&data);
  return held ? *held : nullptr;
}

}  // namespace

const TemplateSequence* TemplateValue::AsSequence() const { return SharedOrNull<const TemplateSequence>(data_); }
const TemplateDict* TemplateValue::AsDict() const { return SharedOrNull<const TemplateDict>(data_); }
const TemplateLoop* TemplateValue::AsLoop() const { return SharedOrNull<const TemplateLoop>(data_); }
TemplateNamespace* TemplateValue::AsNamespace() const { return BorrowedOrNull<TemplateNamespace*>(data_); }
const TemplateMacro* TemplateValue::AsMacro() const { return BorrowedOrNull<const TemplateMacro*>(data_); }
const TemplateFunction* TemplateValue::AsFunction() const { return BorrowedOrNull<const TemplateFunction*>(data_); }

bool TemplateValue::SameObject(const TemplateValue& other) const {
  if (data_.index() != other.data_.index()) return false;
  if (IsUndefined() || IsNone()) return true;
  if (IsBool()) return AsBool() == other.AsBool();
  if (IsInt()) return ToInt() == other.ToInt();
  if (IsFloat()) return ToDouble() == other.ToDouble();
  if (IsText()) return &AsText() == &other.AsText() || bytes() == other.bytes();
  if (AsSequence()) return AsSequence() == other.AsSequence();
  if (AsDict()) return AsDict() == other.AsDict();
  if (AsNamespace()) return AsNamespace() == other.AsNamespace();
  if (AsMacro()) return AsMacro() == other.AsMacro();
  if (AsLoop()) return AsLoop() == other.AsLoop();
  return AsFunction() == other.AsFunction();
}

int TemplateValue::depth() const {
  if (const TemplateSequence* sequence = AsSequence()) return sequence->depth;
  if (const TemplateDict* dict = AsDict()) return dict->depth();
  if (const TemplateLoop* loop = AsLoop()) return loop->items->depth + 1;
  return 0;
}

TemplateSequence::TemplateSequence(Kind sequence_kind, std::vector<TemplateValue> values)
    : kind(sequence_kind), items(std::move(values)), depth(1) {
  for (const TemplateValue& item : items) depth = std::max(depth, item.depth() + 1);
}

bool TemplateDict::Set(TemplateValue key, TemplateValue value) {
  std::string hash_key = TemplateHashKey(key);
  if (hash_key.empty()) return false;
  depth_ = std::max(depth_, value.depth() + 1);
  auto [it, inserted] = index_.try_emplace(std::move(hash_key), items_.size());
  if (inserted) {
    items_.push_back({std::move(key), std::move(value)});
  } else {
    items_[it->second].value = std::move(value);
  }
  return true;
}

const TemplateValue* TemplateDict::Find(const TemplateValue& key) const {
  auto it = index_.find(TemplateHashKey(key));
  return it == index_.end() ? nullptr : &items_[it->second].value;
}

const TemplateValue* TemplateDict::Find(absl::string_view key) const {
  auto it = index_.find(absl::StrCat("s", key));
  return it == index_.end() ? nullptr : &items_[it->second].value;
}

std::string TemplateHashKey(const TemplateValue& value) {
  if (value.IsText()) return absl::StrCat("s", value.bytes());
  if (value.IsNone()) return "none";
  if (value.IsUndefined()) return "undefined";
  if (value.IsIntegral()) return absl::StrCat("n", value.ToInt());
  if (!value.IsFloat()) return "";
  double number = value.ToDouble();
  if (number == std::floor(number) && std::fabs(number) < 9e18) return absl::StrCat("n", static_cast<int64_t>(number));
  return absl::StrFormat("f%.17g", number);
}

void TemplateNamespace::Set(absl::string_view name, TemplateValue value) {
  attributes_[std::string(name)] = std::move(value);
}

const TemplateValue* TemplateNamespace::Find(absl::string_view name) const {
  auto it = attributes_.find(std::string(name));
  return it == attributes_.end() ? nullptr : &it->second;
}

}  // namespace weft
