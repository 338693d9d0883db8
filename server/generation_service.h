// The one door for both protocols: a validated request goes in as text or token ids, deltas of text come out.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/model_config.h"
#include "nlohmann/json.hpp"
#include "scheduler/fair_queue.h"
#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"

namespace weft {

class Metrics;

// Messages, tools and further template variables as the client sent them: a JSON object with "messages".
struct ChatPrompt {
  nlohmann::ordered_json inputs;
};

// A request of either protocol. Types are checked by the protocol's parser; ranges here, by one table (limits.h).
struct GenerateRequest {
  std::string request_id;  // of the client, or made by the front end; echoed, logged
  std::string tenant;      // who pays: the API key's id, or "default"
  std::string model;       // empty: the one that is served
  std::variant<std::string, std::vector<int32_t>, ChatPrompt> prompt;
  bool add_special_tokens = true;  // for text prompts: the tokenizer's post-processor (bos)

  int64_t n = 1;
  std::optional<int64_t> max_tokens;  // none: what the model's positions leave
  int64_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  bool echo = false;  // the prompt's text comes first

  // None: the model's generation_config.json, else the neutral value.
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  std::vector<std::pair<int64_t, double>> logit_bias;
  std::optional<int64_t> seed;
  std::optional<int64_t> num_logprobs;  // best tokens to report beside the drawn one
};

struct TokenText {
  int32_t id = 0;
  std::string bytes;  // raw; may be part of a character
  float logprob = 0;
};

struct GeneratedToken {
  TokenText token;
  std::vector<TokenText> top_logprobs;  // best first
};

enum class StopKind { kStop, kLength, kCancelled, kError };

struct Finish {
  StopKind kind = StopKind::kStop;
  std::variant<std::monostate, std::string, int32_t> stop_reason;  // the stop string or token id that matched
  absl::Status status;                                             // kError: why
};

// What is new for one choice: text that is certain (whole characters, no part of a stop string), the tokens it came
// from where log-probabilities were asked for, and at the end the reason. `finish` comes exactly once for each choice.
struct Delta {
  int index = 0;
  std::string text;
  std::vector<int32_t> token_ids;        // all tokens since the last delta, the stop token not among them
  std::vector<GeneratedToken> logprobs;  // only when asked for
  std::optional<Finish> finish;
};

struct Usage {
  int64_t prompt_tokens = 0;      // once for all n choices
  int64_t completion_tokens = 0;  // of all choices
  int64_t cached_tokens = 0;
};

// A request under way. Owned by the front end's connection; destruction cancels what still runs, and its blocks are
// free within two steps. Used by one thread at a time.
class Generation {
 public:
  ~Generation();
  // What has arrived since the last call, in order for each choice. Never blocks; empty when nothing is new.
  std::vector<Delta> Take();
  bool done() const;  // every choice's finish has been taken
  Usage usage() const;
  const std::vector<int32_t>& prompt_ids() const;
  const std::string& prompt_text() const;  // for echo; empty unless asked for
};

// What clients may know of the model.
struct ModelInfo {
  std::vector<std::string> names;  // as served; the first is the canonical one
  std::string root;                // the directory it was loaded from
  absl::Time created;
  int64_t max_model_len = 0;
  int32_t vocab_size = 0;
  std::string fingerprint;  // build, model digest, kernel path: equal fingerprints give equal tokens
};

// Validates, prices, renders the template, tokenizes, enqueues. Thread-safe.
class GenerationService {
 public:
  // Admission is decided here, before any byte of an answer: errors are ApiErrors (400, 404, 413, 429, 503). `wake` is
  // called, from any thread, when Take() has something new after it gave nothing; it must only post.
  absl::StatusOr<std::unique_ptr<Generation>> Generate(GenerateRequest request, std::function<void()> wake);

  absl::StatusOr<std::vector<int32_t>> Tokenize(const std::variant<std::string, ChatPrompt>& prompt,
                                                bool add_special_tokens) const;
  absl::StatusOr<std::string> Detokenize(const std::vector<int32_t>& ids) const;
  std::string TokenBytes(int32_t id) const;

  const ModelInfo& model() const;
  bool ServesModel(absl::string_view name) const;  // empty: yes

  // From now on new work gets 503; what was accepted goes on.
  void StopAccepting();
  bool accepting() const;
  int64_t num_active() const;  // generations not yet done
  void CancelAll();            // drain time is over
};

}  // namespace weft
