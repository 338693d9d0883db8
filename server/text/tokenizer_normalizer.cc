#include "server/text/tokenizer_normalizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/status_macros.h"
#include "server/text/unicode_nfc.h"

namespace weft {
namespace {

// The longest UTF-8 that composes to one character of two bytes has seven: U+1FBE U+0308 U+0341 make U+0390.
constexpr int kMaxNfcShrink = 4;

}  // namespace

absl::StatusOr<TokenizerNormalizer> TokenizerNormalizer::FromJson(const JsonNode& node) {
  TokenizerNormalizer normalizer;
  if (!node.IsNull()) RETURN_IF_ERROR(normalizer.Add(node));
  return normalizer;
}

// Recursion is bounded by the depth that ReadTokenizerJson allows.
absl::Status TokenizerNormalizer::Add(const JsonNode& node) {
  ASSIGN_OR_RETURN(const std::string type, node.GetString("type"));
  if (type == "Sequence") {
    const JsonNode parts = node.Child("normalizers");
    if (!parts.value().is_array()) return parts.Refuse("invalid_component", "must be an array");
    for (size_t i = 0; i < parts.value().size(); ++i) RETURN_IF_ERROR(Add(parts.Element(i)));
    return absl::OkStatus();
  }
  if (type == "NFC") {
    steps_.emplace_back(Nfc{});
    max_shrink_ *= kMaxNfcShrink;
    return absl::OkStatus();
  }
  if (type == "Prepend") {
    ASSIGN_OR_RETURN(std::string prefix, node.GetString("prepend"));
    steps_.emplace_back(Prepend{std::move(prefix)});
    return absl::OkStatus();
  }
  if (type == "Replace") return AddReplace(node);
  if (type == "Precompiled") {
    ASSIGN_OR_RETURN(const std::string charsmap, node.GetString("precompiled_charsmap"));
    std::string bytes;
    if (!absl::Base64Unescape(charsmap, &bytes)) {
      return node.Child("precompiled_charsmap").Refuse("invalid_normalizer", "not base64");
    }
  }
  return node.Refuse("unsupported_component", absl::StrCat("the normalizer ", type));
}

absl::Status TokenizerNormalizer::AddReplace(const JsonNode& node) {
  Replace step;
  const JsonNode pattern = node.Child("pattern");
  if (pattern.Child("String").IsNull()) return pattern.Refuse("unsupported_component", "only String is supported");
  ASSIGN_OR_RETURN(step.pattern, pattern.GetString("String"));
  ASSIGN_OR_RETURN(step.content, node.GetString("content"));
  if (step.pattern.empty()) return pattern.Refuse("invalid_component", "an empty pattern");
  const size_t shrink =
      step.content.empty() ? 0 : (step.pattern.size() + step.content.size() - 1) / step.content.size();
  max_shrink_ = shrink > 16 ? 0 : max_shrink_ * static_cast<int>(shrink);
  steps_.emplace_back(std::move(step));
  return absl::OkStatus();
}

MarkedText TokenizerNormalizer::Apply(MarkedText text) const {
  for (const auto& step : steps_) {
    text = std::visit([&](const auto& s) { return Run(s, std::move(text)); }, step);
  }
  return text;
}

MarkedText TokenizerNormalizer::Run(const Nfc& /*step*/, MarkedText input) { return NormalizeNfc(std::move(input)); }

MarkedText TokenizerNormalizer::Run(const Prepend& step, MarkedText input) {
  if (input.text.empty()) return input;
  input.text.insert(0, step.prefix);
  if (!input.trusted.empty()) input.trusted.insert(0, step.prefix.size(), input.trusted[0]);
  return input;
}

MarkedText TokenizerNormalizer::Run(const Replace& step, MarkedText input) {
  MarkedText out;
  const absl::string_view text = input.text;
  for (size_t pos = 0; pos < text.size();) {
    const size_t found = std::min(text.find(step.pattern, pos), text.size());
    out.text.append(text.data() + pos, found - pos);
    if (!input.trusted.empty()) out.trusted.append(input.trusted, pos, found - pos);
    if (found == text.size()) break;
    pos = found + step.pattern.size();
    out.text += step.content;
    if (!input.trusted.empty()) out.trusted.append(step.content.size(), input.IsTrusted(found, pos) ? '\1' : '\0');
  }
  return out;
}

}  // namespace weft
