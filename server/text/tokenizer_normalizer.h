#pragma once

#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "server/text/tokenizer_json.h"
#include "server/text/tokenizer_marked_text.h"

namespace weft {

// The "normalizer" of tokenizer.json: rewrites text before it is cut. Supports Sequence, NFC, Prepend and Replace of a
// string; null changes nothing. Immutable once loaded; any thread.
class TokenizerNormalizer {
 public:
  // Codes: unsupported_component, invalid_component, invalid_normalizer.
  static absl::StatusOr<TokenizerNormalizer> FromJson(const JsonNode& node);

  // O(n log n); linear without NFC.
  MarkedText Apply(MarkedText text) const;

  // How many times shorter the output may be than its input; 0 if there is no bound.
  int max_shrink() const { return max_shrink_; }

 private:
  struct Nfc {};
  struct Prepend {
    std::string prefix;
  };
  struct Replace {
    std::string pattern;
    std::string content;
  };

  absl::Status Add(const JsonNode& node);
  absl::Status AddReplace(const JsonNode& node);

  static MarkedText Run(const Nfc& step, MarkedText input);
  static MarkedText Run(const Prepend& step, MarkedText input);
  static MarkedText Run(const Replace& step, MarkedText input);

  std::vector<std::variant<Nfc, Prepend, Replace>> steps_;
  int max_shrink_ = 1;
};

}  // namespace weft
