#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/text/bpe.h"
#include "server/text/file_check.h"
#include "server/text/pretokenizer.h"
#include "server/text/text_segment.h"
#include "server/text/tokenizer_added.h"
#include "server/text/tokenizer_decoder.h"
#include "server/text/tokenizer_normalizer.h"
#include "server/text/tokenizer_template.h"

namespace weft {

// Text to token ids and back, as a Hugging Face tokenizer.json describes it: added tokens are cut out, the rest is
// normalised, split into pieces and merged by BPE. Ids equal those of the `tokenizers` package. The caller owns it;
// immutable once loaded, so any number of threads may use one.
class Tokenizer {
 public:
  // Reads DIR/tokenizer.json and, for the names of bos and eos, DIR/tokenizer_config.json where there is one. Errors,
  // other than those of `check`,
  // are InvalidArgument (NotFound where tokenizer.json is missing) with the text "FILE: CODE: FIELD: WHY". The codes:
  // too_large, invalid, unsupported_component, unsupported_regex, invalid_component, invalid_normalizer, invalid_vocab,
  // invalid_token, invalid_merge, invalid_added_token, invalid_postprocessor, invalid_truncation, inconsistent.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& dir, const FileCheck& check = nullptr);

  // From the content of a tokenizer.json, without names for bos and eos. Errors as Load's.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(const nlohmann::json& tree);

  // Whether the ids fit a model with this many rows of embeddings, and bos is the model's own where both name one.
  // Codes: vocab_mismatch, inconsistent.
  absl::Status CheckModel(int64_t num_embedding_rows, std::optional<int32_t> bos_id) const;

  // Ids of request data: text that spells a special token stays text. Invalid UTF-8 reads as U+FFFD. O(n log n) in the
  // length of the text, which must be below 1 GiB.
  std::vector<int32_t> Encode(absl::string_view text) const;

  // Ids of a rendered chat template. Segments are joined before anything is split, so their borders don't show in the
  // ids; a special token matches where all of its text is trusted.
  std::vector<int32_t> EncodeSegments(absl::Span<const TextSegment> segments) const;

  // `ids` with what the post-processor puts around a prompt, such as bos.
  std::vector<int32_t> AddSpecial(std::vector<int32_t> ids) const;

  // Text of a whole sequence of ids, valid UTF-8. Ids outside the vocabulary are passed over. IncrementalDetokenizer
  // gives the same text in parts.
  std::string Decode(absl::Span<const int32_t> ids, bool skip_special) const;

  // What one token contributes in the middle of a text: bytes, perhaps a part of a character. Empty for an unknown id.
  std::string TokenBytes(int32_t id) const;

  // What the decoder reads for a token: its spelling in the vocabulary's own alphabet. Requires 0 <= id < vocab_size().
  absl::string_view Spelling(int32_t id) const { return spellings_[static_cast<size_t>(id)]; }

  bool IsSpecial(int32_t id) const;

  // The id that is spelled so, in the vocabulary's alphabet; added tokens included.
  std::optional<int32_t> TokenId(absl::string_view spelling) const;

  // Highest id + 1; every id below is a token.
  int32_t vocab_size() const { return static_cast<int32_t>(spellings_.size()); }

  // No prompt of B bytes has fewer than B / max_token_bytes() tokens: the bound for refusing text by its length before
  // encoding it. INT32_MAX where the tokenizer has no such bound, because it drops or fuses characters.
  int32_t max_token_bytes() const { return max_token_bytes_; }

  // As tokenizer_config.json names them; empty strings where it doesn't.
  const std::string& bos_token() const { return bos_token_; }
  const std::string& eos_token() const { return eos_token_; }

  const TokenizerDecoder& decoder() const { return decoder_; }

 private:
  Tokenizer(TokenizerNormalizer normalizer, Pretokenizer pretokenizer, Bpe bpe, AddedTokens added,
            TokenizerDecoder decoder);

  absl::Status IndexIds(const JsonNode& vocab, const JsonNode& added_tokens);
  absl::Status ReadConfig(const std::string& dir, const FileCheck& check);
  int32_t ComputeMaxTokenBytes() const;

  std::vector<int32_t> EncodeMarked(const MarkedText& text) const;
  void EncodePlain(MarkedText text, bool starts_prompt, Bpe::Scratch& scratch, std::vector<int32_t>& ids) const;

  TokenizerNormalizer normalizer_;
  Pretokenizer pretokenizer_;
  Bpe bpe_;
  AddedTokens added_;
  TokenizerDecoder decoder_;
  TokenizerTemplate template_;

  std::vector<std::string> spellings_;                   // [vocab_size]
  std::vector<bool> is_special_;                         // [vocab_size]
  absl::flat_hash_map<std::string, int32_t> added_ids_;  // of added tokens, which need not be in the model's vocabulary
  int32_t max_token_bytes_ = 0;
  std::string bos_token_;
  std::string eos_token_;
};

}  // namespace weft
