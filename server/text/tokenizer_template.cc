#include "server/text/tokenizer_template.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

using Specials = absl::flat_hash_map<std::string, std::vector<int32_t>>;

absl::StatusOr<std::vector<int32_t>> ReadIds(const JsonNode& special, const std::vector<std::string>& spellings) {
  const JsonNode ids = special.Child("ids");
  const JsonNode tokens = special.Child("tokens");
  if (!ids.value().is_array() || !tokens.value().is_array() || ids.value().size() != tokens.value().size()) {
    return special.Refuse("invalid_postprocessor", "ids and tokens must be arrays of one length");
  }
  std::vector<int32_t> out;
  for (size_t i = 0; i < ids.value().size(); ++i) {
    const nlohmann::json& id = ids.value()[i];
    const bool in_range = id.is_number_integer() && id >= 0 && id < spellings.size();
    if (!in_range || tokens.value()[i] != spellings[id.get<size_t>()]) {
      return ids.Element(i).Refuse("invalid_postprocessor", "not the id of that token");
    }
    out.push_back(id.get<int32_t>());
  }
  return out;
}

absl::StatusOr<Specials> ReadSpecials(const JsonNode& node, const std::vector<std::string>& spellings) {
  Specials specials;
  if (!node.value().is_object()) return node.Refuse("invalid_postprocessor", "must be an object");
  for (const auto& [name, special] : node.value().items()) {
    ASSIGN_OR_RETURN(specials[name], ReadIds(node.Child(name), spellings));
  }
  return specials;
}

// The ids before and after sequence A in one template. `num_sequences` is 1 for "single", 2 for "pair".
absl::StatusOr<TokenizerTemplate> ReadPieces(const JsonNode& pieces, const Specials& specials, int num_sequences) {
  if (!pieces.value().is_array()) return pieces.Refuse("invalid_postprocessor", "must be an array");
  TokenizerTemplate out;
  int num_seen = 0;
  for (size_t i = 0; i < pieces.value().size(); ++i) {
    const JsonNode piece = pieces.Element(i);
    if (!piece.Child("Sequence").IsNull()) {
      ++num_seen;
      continue;
    }
    const nlohmann::json& name = piece.Child("SpecialToken").Child("id").value();
    const auto special = name.is_string() ? specials.find(name.get<std::string>()) : specials.end();
    if (special == specials.end()) return piece.Refuse("invalid_postprocessor", "names no entry of special_tokens");
    std::vector<int32_t>& side = num_seen == 0 ? out.prefix : out.suffix;
    side.insert(side.end(), special->second.begin(), special->second.end());
  }
  if (num_seen != num_sequences) {
    return pieces.Refuse("unsupported_component", absl::StrCat("must hold ", num_sequences, " sequences"));
  }
  return out;
}

}  // namespace

// Recursion is bounded by the depth that ReadTokenizerJson allows.
absl::StatusOr<TokenizerTemplate> TokenizerTemplate::FromJson(const JsonNode& node,
                                                              const std::vector<std::string>& spellings) {
  TokenizerTemplate out;
  if (node.IsNull()) return out;
  ASSIGN_OR_RETURN(const std::string type, node.GetString("type"));
  if (type == "ByteLevel") return out;
  if (type == "Sequence") {
    const JsonNode parts = node.Child("processors");
    if (!parts.value().is_array()) return parts.Refuse("invalid_component", "must be an array");
    for (size_t i = 0; i < parts.value().size(); ++i) {
      ASSIGN_OR_RETURN(const TokenizerTemplate part, FromJson(parts.Element(i), spellings));
      out.prefix.insert(out.prefix.begin(), part.prefix.begin(), part.prefix.end());
      out.suffix.insert(out.suffix.end(), part.suffix.begin(), part.suffix.end());
    }
    return out;
  }
  if (type != "TemplateProcessing") {
    return node.Refuse("unsupported_component", absl::StrCat("the post-processor ", type));
  }
  ASSIGN_OR_RETURN(const Specials specials, ReadSpecials(node.Child("special_tokens"), spellings));
  // Pairs aren't served, but a broken reference there means a broken file.
  if (!node.Child("pair").IsNull()) RETURN_IF_ERROR(ReadPieces(node.Child("pair"), specials, 2).status());
  return ReadPieces(node.Child("single"), specials, 1);
}

}  // namespace weft
