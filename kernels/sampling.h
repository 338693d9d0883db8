// What a backend needs to draw one token, and what it gives back. Plain data, no request in sight.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"

namespace weft {

// How often a token has occurred; one entry a distinct token.
struct TokenCount {
  int32_t token = 0;
  int32_t in_prompt = 0;
  int32_t in_output = 0;
};

struct LogitBias {
  int32_t token = 0;
  float bias = 0;  // added to the logit; -infinity bans the token
};

// The rule for one row of logits. The draw is a pure function of (logits, this struct), so it depends on nobody who
// shares the step. Applied in this order: penalties (repetition, then presence and frequency), biases, temperature,
// top_k, top_p (of what top_k left, renormalised), min_p; ties at a cut go to the lowest id. Among the tokens left the
// winner is the least of -log(1 - u_i) / p_i (Gumbel-max without the logarithm of p), with u_i from word i % 4 of
// Philox 4x32-10 keyed by `seed` at counter (`position`, `sequence`, i / 4); see philox.h.
struct SampleArgs {
  float temperature = 1.0f;  // 0: greedy, ties to the lowest id
  int32_t top_k = 0;         // keep the k best; 0: all
  float top_p = 1.0f;        // keep the smallest set of best tokens whose probability reaches top_p
  float min_p = 0.0f;        // keep tokens at least min_p times as probable as the best
  float repetition_penalty =
      1.0f;                       // CTRL (arXiv 1909.05858): seen tokens' logits divided (positive) or multiplied by it
  float presence_penalty = 0.0f;  // subtracted from tokens of the output
  float frequency_penalty = 0.0f;  // subtracted from tokens of the output, times their count there
  uint64_t seed = 0;
  uint32_t sequence = 0;                // which of a request's n choices
  int64_t position = 0;                 // of the token to be drawn
  int32_t num_logprobs = -1;            // -1: none wanted; n: the drawn token's and the n best
  std::optional<int32_t> known;         // the token is this one: only its log-probabilities are wanted
  int32_t* keep = nullptr;              // in device memory: gets the drawn token too; null: nothing does
  absl::Span<const TokenCount> counts;  // empty when no penalty is set
  absl::Span<const LogitBias> biases;   // bias and bans, applied after the penalties
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

// Log-probabilities are of the model's own distribution: before penalties, bias, temperature and truncation.
struct SampleResult {
  int32_t token = 0;
  float logprob = 0;                       // of `token`; set when num_logprobs >= 0
  std::vector<TokenLogprob> top_logprobs;  // best first, ties to the lowest id; num_logprobs entries
  bool finite = true;                      // false: a NaN, +infinity, or no finite logit left; `token` means nothing
};

}  // namespace weft
