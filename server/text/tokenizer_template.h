#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/text/tokenizer_json.h"

namespace weft {

// The "post_processor" of tokenizer.json, for one sequence: the ids that go before and after a prompt. Supports
// TemplateProcessing, ByteLevel (which adds none) and Sequence; null adds none. Plain data.
struct TokenizerTemplate {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;

  // `spellings`: [vocabulary] what each id spells, for checking references. Codes: unsupported_component,
  // invalid_component, invalid_postprocessor.
  static absl::StatusOr<TokenizerTemplate> FromJson(const JsonNode& node, const std::vector<std::string>& spellings);
};

}  // namespace weft
