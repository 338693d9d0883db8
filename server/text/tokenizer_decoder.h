#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/text/tokenizer_json.h"

namespace weft {

// The "decoder" of tokenizer.json: what text a token's spelling stands for. Supports ByteLevel, Metaspace, and the
// chain [Replace of a string]* [ByteFallback] [Fuse] [Strip at the start] of converted SentencePiece models. Says what
// one token contributes; IncrementalDetokenizer puts the contributions together. Immutable once loaded; any thread.
class TokenizerDecoder {
 public:
  // How the bytes of tokens become characters.
  enum class Bytes {
    kStream,  // ByteLevel: all tokens are bytes of one stream of UTF-8
    kRuns,    // ByteFallback: a run of byte tokens is text if all of it is UTF-8, else one U+FFFD a byte
    kNone,    // no token is a byte
  };

  // Codes: unsupported_component, invalid_component.
  static absl::StatusOr<TokenizerDecoder> FromJson(const JsonNode& node);

  Bytes bytes() const { return bytes_; }

  // What a token contributes. `is_first`: nothing has been decoded before it.
  std::string Text(absl::string_view spelling, bool is_first) const;

  // The byte that a spelling <0x..> stands for; only with kRuns.
  std::optional<char> Byte(absl::string_view spelling) const;

  // Up to this many of this character are cut from the start of the whole text.
  size_t num_stripped() const { return num_stripped_; }
  absl::string_view stripped() const { return stripped_; }

 private:
  absl::Status Add(const JsonNode& node);
  absl::Status AddReplace(const JsonNode& node);
  absl::Status AddMetaspace(const JsonNode& node);
  absl::Status AddStrip(const JsonNode& node);

  Bytes bytes_ = Bytes::kNone;
  std::vector<std::pair<std::string, std::string>> replacements_;
  // Metaspace with a prefix: this vanishes from the first token.
  std::string dropped_from_first_;
  bool is_fused_ = false;
  std::string stripped_;
  size_t num_stripped_ = 0;
};

}  // namespace weft
