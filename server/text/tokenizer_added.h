#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/text/tokenizer_json.h"
#include "server/text/tokenizer_marked_text.h"
#include "server/text/tokenizer_normalizer.h"

namespace weft {

// One entry of "added_tokens": a string that becomes one id wherever it stands.
struct AddedToken {
  std::string content;
  std::string decoded;  // what decoding reads for it: the normalised form where `normalized`, else the content
  int32_t id = 0;
  bool special = false;      // control token: matched only in trusted text, left out of decoded text on request
  bool normalized = false;   // matched in its normalised form, after normalisation
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and after it
  bool single_word = false;  // not matched as a part of a longer word
};

// Finds added tokens in text. Immutable once loaded; any thread.
class AddedTokens {
 public:
  // A run [begin, end) of bytes: an added token, or text between tokens.
  struct Span {
    size_t begin;
    size_t end;
    std::optional<int32_t> id;
  };

  // Reads the "added_tokens" section. Code: invalid_added_token.
  static absl::StatusOr<AddedTokens> FromJson(const JsonNode& node, const TokenizerNormalizer& normalizer);

  const std::vector<AddedToken>& tokens() const { return tokens_; }

  // Whether a token stands for more text than it spells.
  bool strips_spaces() const;

  // The tokens that must match before normalisation, and those that match after. Each cuts its text into spans without
  // gaps: at each place the longest token that may match there, from left to right. O(text x longest token).
  std::vector<Span> SplitRaw(const MarkedText& text) const { return Split(raw_, text); }
  std::vector<Span> SplitNormalized(const MarkedText& text) const { return Split(normalized_, text); }

 private:
  // A tree of bytes; a node is a number, the root is 0.
  struct Trie {
    std::array<bool, 256> starts = {};                          // first bytes, to pass over text quickly
    absl::flat_hash_map<uint64_t, uint32_t> children;           // node << 8 | byte -> node
    std::vector<std::optional<size_t>> token = {std::nullopt};  // [node] index into tokens_
    void Insert(absl::string_view spelling, size_t index);
  };
  // What stands at a place: the longest token that may match, and the end of text to pass over where there is none.
  struct Found {
    std::optional<size_t> token;
    size_t end;
  };

  absl::Status Read(const JsonNode& node);
  Found FindAt(const Trie& trie, const MarkedText& text, size_t begin) const;
  std::vector<Span> Split(const Trie& trie, const MarkedText& text) const;

  std::vector<AddedToken> tokens_;
  Trie raw_;
  Trie normalized_;
};

}  // namespace weft
