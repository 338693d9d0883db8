#include "server/text/tokenizer_decoder.h"

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/status_macros.h"
#include "server/text/unicode.h"
#include "server/text/unicode_byte_alphabet.h"

namespace weft {
namespace {

constexpr int64_t kMaxStripped = 1024;  // the length of the longest token

}  // namespace

absl::StatusOr<TokenizerDecoder> TokenizerDecoder::FromJson(const JsonNode& node) {
  TokenizerDecoder decoder;
  if (node.IsNull()) return node.Refuse("unsupported_component", "there is no decoder");
  RETURN_IF_ERROR(decoder.Add(node));
  return decoder;
}

// Recursion is bounded by the depth that ReadTokenizerJson allows.
absl::Status TokenizerDecoder::Add(const JsonNode& node) {
  ASSIGN_OR_RETURN(const std::string type, node.GetString("type"));
  if (type == "Sequence") {
    const JsonNode parts = node.Child("decoders");
    if (!parts.value().is_array()) return parts.Refuse("invalid_component", "must be an array");
    for (size_t i = 0; i < parts.value().size(); ++i) RETURN_IF_ERROR(Add(parts.Element(i)));
    return absl::OkStatus();
  }
  if (type == "Strip") return AddStrip(node);
  if (type == "Fuse") {
    is_fused_ = true;
    return absl::OkStatus();
  }
  const bool is_first = replacements_.empty() && bytes_ == Bytes::kNone;
  if (is_fused_ || bytes_ != Bytes::kNone || (!is_first && type != "Replace" && type != "ByteFallback")) {
    return node.Refuse("unsupported_component", absl::StrCat("the decoder ", type, " at this place of the chain"));
  }
  if (type == "Replace") return AddReplace(node);
  if (type == "Metaspace") return AddMetaspace(node);
  if (type == "ByteLevel") {
    bytes_ = Bytes::kStream;
    return absl::OkStatus();
  }
  if (type == "ByteFallback") {
    bytes_ = Bytes::kRuns;
    return absl::OkStatus();
  }
  return node.Refuse("unsupported_component", absl::StrCat("the decoder ", type));
}

absl::Status TokenizerDecoder::AddReplace(const JsonNode& node) {
  const JsonNode pattern = node.Child("pattern");
  if (pattern.Child("String").IsNull()) return pattern.Refuse("unsupported_component", "only String is supported");
  ASSIGN_OR_RETURN(std::string from, pattern.GetString("String"));
  ASSIGN_OR_RETURN(std::string to, node.GetString("content"));
  if (from.empty()) return pattern.Refuse("invalid_component", "an empty pattern");
  replacements_.emplace_back(std::move(from), std::move(to));
  return absl::OkStatus();
}

absl::Status TokenizerDecoder::AddMetaspace(const JsonNode& node) {
  ASSIGN_OR_RETURN(const std::string replacement, node.GetString("replacement"));
  if (replacement.empty() || DecodeValidUtf8(replacement, 0).num_bytes != static_cast<int>(replacement.size())) {
    return node.Child("replacement").Refuse("invalid_component", "must be one character");
  }
  ASSIGN_OR_RETURN(const bool add_prefix_space, node.GetBool("add_prefix_space", true));
  ASSIGN_OR_RETURN(const std::string scheme, node.GetString("prepend_scheme", add_prefix_space ? "always" : "never"));
  if (scheme != "never") dropped_from_first_ = replacement;
  replacements_.emplace_back(replacement, " ");
  return absl::OkStatus();
}

absl::Status TokenizerDecoder::AddStrip(const JsonNode& node) {
  ASSIGN_OR_RETURN(stripped_, node.GetString("content"));
  if (stripped_.empty() || DecodeValidUtf8(stripped_, 0).num_bytes != static_cast<int>(stripped_.size())) {
    return node.Child("content").Refuse("invalid_component", "must be one character");
  }
  for (const char* key : {"start", "stop"}) {
    const nlohmann::json& count = node.Child(key).value();
    if (!count.is_number_integer() || count < 0 || count > kMaxStripped) {
      return node.Child(key).Refuse("invalid_component", absl::StrCat("must be an integer in 0..", kMaxStripped));
    }
  }
  if (!is_fused_ || num_stripped_ > 0 || node.Child("stop").value() != 0) {
    return node.Refuse("unsupported_component", "Strip is supported once, after Fuse, at the start of the text");
  }
  num_stripped_ = node.Child("start").value().get<size_t>();
  return absl::OkStatus();
}

std::string TokenizerDecoder::Text(absl::string_view spelling, bool is_first) const {
  if (bytes_ == Bytes::kStream) {
    std::optional<std::string> bytes = BytesOfSpelling(spelling);
    return bytes.has_value() ? *std::move(bytes) : std::string(spelling);
  }
  std::string text(spelling);
  if (is_first && !dropped_from_first_.empty()) text = absl::StrReplaceAll(text, {{dropped_from_first_, ""}});
  for (const auto& [from, to] : replacements_) text = absl::StrReplaceAll(text, {{from, to}});
  return text;
}

std::optional<char> TokenizerDecoder::Byte(absl::string_view spelling) const {
  if (bytes_ != Bytes::kRuns || spelling.size() != 6) return std::nullopt;
  if (!absl::StartsWith(spelling, "<0x") || spelling[5] != '>') return std::nullopt;
  const absl::string_view digits = spelling.substr(3, 2);
  for (const char digit : digits) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(digit))) return std::nullopt;
  }
  return absl::HexStringToBytes(digits)[0];
}

}  // namespace weft
