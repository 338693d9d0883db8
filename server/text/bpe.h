#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/text/tokenizer_json.h"

namespace weft {

// What a piece is taken apart into before merging.
enum class BpeSymbols {
  kCharacters,  // Unicode characters, as in models converted from SentencePiece
  kBytes,       // bytes, which the vocabulary spells in the byte-level alphabet (see unicode_byte_alphabet.h)
};

// A byte-pair-encoding model: a vocabulary and a ranked list of merges. Immutable once loaded; any thread.
class Bpe {
 public:
  // Working memory of EncodePiece, to be kept between the pieces of one text. Plain data, no meaning between calls.
  struct Symbol {
    int32_t id;    // token; kRemoved once merged into its left neighbour
    int32_t prev;  // index of the neighbours that remain; kNone at the ends
    int32_t next;
    uint32_t rank;   // of the merge with `next`; kNoMerge if there is none
    int32_t merged;  // token that this merge makes
  };
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<uint64_t> heap;
  };

  // Reads the "model" section. Codes: unsupported_component, invalid_vocab, invalid_merge, invalid_token, too_large.
  static absl::StatusOr<Bpe> FromJson(const JsonNode& model, BpeSymbols symbols);

  // Makes these ids unreachable from text, however it is spelled, but for an unknown token. For special tokens that
  // stand in the model's vocabulary too.
  void Reserve(const absl::flat_hash_set<int32_t>& ids);

  // Appends the tokens of one pre-tokenized piece: merges by lowest rank, leftmost first, until none applies.
  // O(n log n) in the bytes of the piece, which must be fewer than 2^31.
  void EncodePiece(absl::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;

  // Token spelling (in the file's alphabet) -> id.
  const absl::flat_hash_map<std::string, int32_t>& vocab() const { return vocab_; }

  // Whether one id can stand for any number of characters: unknown characters are dropped, or fused into one token.
  bool SwallowsUnknown() const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };

  absl::Status ReadOptions(const JsonNode& model);
  absl::Status ReadVocab(const JsonNode& vocab);
  absl::Status ReadMerges(const JsonNode& merges);
  absl::Status AddMerge(const JsonNode& node, uint32_t rank, absl::string_view left, absl::string_view right);
  absl::Status ReadByteTokens(const JsonNode& vocab);
  void IndexCharacters();
  void IndexBytes();
  absl::Status CheckUnknown(const JsonNode& model) const;

  void AppendSymbols(absl::string_view piece, std::vector<Symbol>& symbols) const;
  void AppendCharacter(absl::string_view character, std::vector<Symbol>& symbols) const;
  // Fills rank and merged of symbols[i], and queues the merge if there is one.
  void FindMerge(size_t i, Scratch& scratch) const;
  void MergeAll(Scratch& scratch) const;

  BpeSymbols kind_ = BpeSymbols::kCharacters;
  bool byte_fallback_ = false;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
  std::string unk_token_;
  std::optional<int32_t> unk_id_;

  absl::flat_hash_map<std::string, int32_t> vocab_;
  absl::flat_hash_map<uint64_t, Merge> merges_;        // left id << 32 | right id
  absl::flat_hash_map<std::string, int32_t> pieces_;   // whole pieces that are tokens; filled if ignore_merges_
  absl::flat_hash_map<char32_t, int32_t> characters_;  // kCharacters: tokens of one character
  std::array<int32_t, 256> bytes_;                     // kBytes: token of a byte; kCharacters: byte-fallback token
};

}  // namespace weft
