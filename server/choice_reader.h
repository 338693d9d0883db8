// Turns one choice's tokens into text that may be shown.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "server/generate_request.h"
#include "server/text/detokenizer.h"
#include "server/text/stop_matcher.h"
#include "server/text/tokenizer.h"
#include "server/token_stream.h"

namespace weft {

struct TokenText {
  int32_t id = 0;
  std::string bytes;  // raw; may be part of a character
  float logprob = 0;
};

// A token with its alternatives: drawn, or, where the prompt is echoed, the prompt's own.
struct GeneratedToken {
  TokenText token;
  std::vector<TokenText> top_logprobs;  // best first
  // Characters of the choice's text that came with it: none for part of one, or for a special token that is skipped.
  int64_t num_chars = 0;
  bool has_logprob = true;  // not so the prompt's first token, which nothing comes before
};

enum class StopKind { kStop, kLength, kCancelled, kError };

struct Finish {
  StopKind kind = StopKind::kStop;
  std::variant<std::monostate, std::string, int32_t> stop_reason;  // the stop string or token id that matched
  absl::Status status;                                             // kError: why, as an ApiError
};

// Why a choice ended without its text being whole; OK for one that ended well.
absl::Status FinishError(const Finish& finish);

// What is new for one choice: text that is certain (whole characters, no part of a stop string), the tokens it came
// from and at the end the reason. `finish` comes exactly once for each choice.
struct Delta {
  int index = 0;
  std::string text;
  std::vector<int32_t> token_ids;        // of the text; neither a stop token nor those of a stop string are among them
  std::vector<GeneratedToken> logprobs;  // one for each token, only when asked for; an echoed prompt's come first
  std::optional<Finish> finish;
};

struct ChoiceOptions {
  int index = 0;
  bool skip_special_tokens = true;
  bool include_stop = false;
  bool wants_logprobs = false;
  int64_t min_tokens = 0;  // stop strings are not looked for in the text of so many tokens
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;  // the request's own: only they are named as the reason of a stop
  std::optional<int32_t> continues_id;  // the prompt's last token, where the text goes on from the prompt's
};

// Detokenizes one choice, looks for stop strings, and keeps tokens back until their text is shown. Owned by a
// Generation, used by its thread. Holds at most the tokens of one stop string, or of a run without any text.
class ChoiceReader {
 public:
  // The tokenizer outlives the reader.
  ChoiceReader(const Tokenizer& tokenizer, ChoiceOptions options);

  // Takes what the stream gave; none when there is nothing to show yet. Not to be called after a finish.
  std::optional<Delta> Read(TokenStream::Taken taken);

  // The prompt's tokens with the scores that have come, given out once. ids: of the prompt. `shows_special`: its text
  // spells special tokens out.
  std::vector<GeneratedToken> TakePrompt(const std::vector<int32_t>& ids, bool shows_special);

  // A stop string ended the choice, so its stream may draw no more.
  bool stopped_by_text() const { return stopped_by_text_; }
  int64_t num_tokens() const { return num_tokens_; }  // drawn up to the end, a stop token included

 private:
  struct HeldToken {
    int64_t text_begin;  // offset of its text among all text of the choice
    int32_t id;
    int64_t num_chars;
    std::optional<SampledToken> detail;
  };

  // Takes text that became known; sets the finish when it completes a stop string.
  void Feed(const std::string& text, Delta& delta);
  void FinishWith(const FinishEvent& event, Delta& delta);
  void Release(Delta& delta);
  GeneratedToken Describe(const SampledToken& token, int64_t num_chars) const;
  TokenText TextOf(int32_t id, float logprob) const;

  const Tokenizer* tokenizer_;
  ChoiceOptions options_;
  IncrementalDetokenizer detokenizer_;
  StopMatcher stop_matcher_;
  std::vector<SampledToken> scores_;  // of the prompt's tokens from the second on
  std::deque<HeldToken> held_;
  int64_t known_bytes_ = 0;  // text that came out of the detokenizer
  int64_t shown_bytes_ = 0;  // text that went into deltas
  int64_t num_tokens_ = 0;
  bool stopped_by_text_ = false;
};

}  // namespace weft
