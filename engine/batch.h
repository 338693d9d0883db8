// The contract between scheduler and engine: flat arrays, no pointers to sequences, cheap to send to another process.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace weft {

// In Batch::token_ids: the token that was last sampled in the row's slot. It lets step n + 1 be submitted before step
// n's tokens are known to the host.
inline constexpr int32_t kLastSampled = -1;

// How the tokens of one sequence are drawn. Fixed while the sequence lives.
struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy
  int32_t top_k = 0;         // 0: all
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::vector<std::pair<int32_t, float>> logit_bias;  // token, added to its logit
  uint64_t seed = 0;
  uint32_t sequence = 0;                   // which of a request's n choices; parts equal seeds
  int32_t num_logprobs = -1;               // -1: none; n >= 0: of the drawn token and of the n best
  bool score_prompt = false;               // the prompt's tokens are reported on too; needs num_logprobs >= 0
  int32_t min_tokens = 0;                  // until so many tokens are drawn, those of `banned_before_min` can't be
  std::vector<int32_t> banned_before_min;  // end-of-sequence and stop ids

  bool HasPenalties() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f || frequency_penalty != 0.0f;
  }
};

// A sequence takes a slot: its parameters, and the tokens known so far (for penalties; empty when there are none). Its
// block table there is empty.
struct SlotStart {
  int32_t slot = 0;
  int32_t num_prompt_tokens = 0;
  SamplingParams sampling;
  std::vector<int32_t> tokens;  // prompt, then what was drawn before a preemption
};

// A change of a slot's block table, which the worker keeps: what travels with a step grows with what changed, not with
// how long sequences are.
struct BlockUpdate {
  int32_t slot = 0;
  int32_t index = 0;  // in the table: holds tokens index * block_size ..
  int32_t block = 0;
};

// A token that the step's logits are wanted for: the next one of a row that ends its known tokens, to be drawn; or one
// of a prompt, to be scored.
struct SamplingRow {
  int32_t row = 0;
  int64_t position = 0;          // of the token; the one before it is in the row
  std::optional<int32_t> known;  // the prompt's token there: nothing is drawn
};

// Everything a worker needs for one step.
struct Batch {
  int64_t step = 0;
  std::vector<int32_t> token_ids;  // [num_tokens] a token, or kLastSampled
  std::vector<int32_t> positions;  // [num_tokens]
  // [num_rows + 1] row r, one sequence's chunk, has tokens row_begin[r] .. row_begin[r+1]
  std::vector<int32_t> row_begin = {0};
  std::vector<int32_t> slots;              // [num_rows] where the sequence's device-side state lives
  std::vector<SlotStart> slot_starts;      // applied before anything else
  std::vector<BlockUpdate> block_updates;  // applied next; each row's table then covers all its tokens
  std::vector<SamplingRow> sampling;       // ascending by row, then by position

  bool empty() const { return token_ids.empty(); }
  int num_tokens() const { return static_cast<int>(token_ids.size()); }
  int num_rows() const { return static_cast<int>(slots.size()); }

  // Empty, and ready to be filled without allocating.
  void Clear() {
    token_ids.clear();
    positions.clear();
    row_begin.assign(1, 0);
    slots.clear();
    slot_starts.clear();
    block_updates.clear();
    sampling.clear();
  }
};

struct TokenAndLogprob {
  int32_t token = 0;
  float logprob = 0;
};

// One drawn token, or one of the prompt with its score. Log-probabilities are of the model's own distribution, before
// penalties, bias and temperature.
struct SampledToken {
  int32_t token = 0;
  float logprob = 0;                          // set when the sequence asked for log-probabilities
  std::vector<TokenAndLogprob> top_logprobs;  // best first
  bool in_prompt = false;                     // the prompt's own, scored
  bool finite = true;                         // false: the logits held a NaN; the sequence must end in an error
};

// What a step gave: one token for each entry of Batch::sampling, in its order.
struct StepResult {
  int64_t step = 0;
  std::vector<SampledToken> tokens;
  absl::Duration compute_time;  // the last stage's time on this step, with what it waited for the stages before
};

}  // namespace weft
