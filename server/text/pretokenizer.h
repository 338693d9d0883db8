#pragma once

#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/text/pretokenizer_match.h"
#include "server/text/tokenizer_json.h"

namespace weft {

// Text cut into pieces that BPE never merges across. What no piece covers was removed.
struct PieceText {
  struct Piece {
    size_t begin;  // bytes of `text`, begin < end
    size_t end;
  };
  std::string text;
  std::vector<Piece> pieces;

  absl::string_view Bytes(const Piece& piece) const {
    return absl::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }
};

// The "pre_tokenizer" of tokenizer.json: a chain of steps that split pieces or prefix them. Supports Sequence,
// ByteLevel (last in the chain), Split, Digits and Metaspace; null is one piece. Immutable once loaded; any thread.
class Pretokenizer {
 public:
  // Codes: unsupported_component, unsupported_regex, invalid_component.
  static absl::StatusOr<Pretokenizer> FromJson(const JsonNode& node);

  // Whether the chain ends in ByteLevel, whose pieces the model reads as bytes.
  bool is_byte_level() const { return is_byte_level_; }

  // Whether characters may vanish here, so that text length doesn't bound the number of tokens from above.
  bool removes_text() const { return removes_text_; }

  // Cuts valid UTF-8. `starts_prompt`: nothing of the prompt precedes the text. Linear, but for the bound that
  // CompilePattern documents.
  PieceText Apply(std::string text, bool starts_prompt) const;

 private:
  enum class Behavior { kIsolated, kRemoved, kContiguous, kMergedWithPrevious, kMergedWithNext };
  struct SplitStep {
    Matcher find_matches;
    Behavior behavior;
    bool invert = false;
  };
  enum class Prefix { kAlways, kFirst, kNever };
  struct PrefixStep {
    std::string space;  // what " " becomes, everywhere
    Prefix when;        // which pieces get it in front, if they don't begin with it
  };
  using Step = std::variant<SplitStep, PrefixStep>;

  absl::Status Add(const JsonNode& node);
  absl::Status AddSplit(const JsonNode& node);
  absl::Status AddByteLevel(const JsonNode& node);
  absl::Status AddMetaspace(const JsonNode& node);
  absl::Status AddDigits(const JsonNode& node);

  static void Run(const SplitStep& step, bool starts_prompt, PieceText& pieces);
  static void Run(const PrefixStep& step, bool starts_prompt, PieceText& pieces);
  static void Cut(const SplitStep& step, std::vector<Match>& matches, size_t offset,
                  std::vector<PieceText::Piece>& out);

  std::vector<Step> steps_;
  bool is_byte_level_ = false;
  bool removes_text_ = false;
};

}  // namespace weft
