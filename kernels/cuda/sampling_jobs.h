// What the sampler tells the kernels of each row, and what they tell it. Plain data; a job is one block's.
#pragma once

#include <cstdint>

namespace weft::cuda {

// A row of logits, or some of its tokens.
struct TokenLogits {
  const float* logits = nullptr;    // [count]
  const int32_t* tokens = nullptr;  // [count] whose they are; null: first_token, first_token + 1, ...
  int32_t first_token = 0;
  int32_t count = 0;
};

// Tokens that a row may have: 22 bits in what orders them (token_rank.cuh).
inline constexpr int64_t kMaxTokens = int64_t{1} << 22;

// The greatest logit of a row, and sums.
struct SummaryJob {
  const float* logits = nullptr;  // [count]
  int32_t count = 0;
  int32_t known = -1;     // whose logit is wanted; -1: nobody's
  float temperature = 0;  // of the sum; 0: it isn't wanted
  int32_t row = 0;        // which entry of the totals is this one's
};
struct RowTotals {
  double sum = 0;     // of exp((logit - max) / temperature); 0 where max isn't finite
  float max = 0;      // NaN: a NaN is among them; -infinity: nothing is left
  float known = 0;    // -infinity: of nobody here
  int32_t best = -1;  // the lowest place of `max`
};

// Penalties, then biases; see SampleArgs.
struct EditJob {
  float* logits = nullptr;  // [count]
  float* copy = nullptr;    // [count] gets them as they came; null: not wanted
  int32_t first_token = 0;
  int32_t count = 0;
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  int32_t counts_begin = 0, num_counts = 0;  // of the counts of all rows
  int32_t biases_begin = 0, num_biases = 0;
};

// The `wanted` best tokens above -infinity, the best first, the lowest id first among equals.
struct PickJob {
  const float* logits = nullptr;  // [count]
  const float* raw = nullptr;     // [count] what to report beside them; null: 0
  int32_t first_token = 0;
  int32_t count = 0;
  int32_t wanted = 0;         // at least 1
  int32_t padded = 0;         // `wanted`, or more, to a power of two: they are sorted in a network
  int64_t picked_begin = 0;   // its `wanted` entries of all that are picked
  int64_t scratch_begin = 0;  // its `padded` entries of the scratch
};
struct PickedToken {
  float logit = 0;
  float raw = 0;
  int32_t token = -1;  // -1: there are no more
};

// The draw of one token.
struct DrawJob {
  TokenLogits row;
  const float* raw = nullptr;  // [count] what to report of the winner; null: 0
  int32_t totals = 0;          // which of the totals is the row's: the maximum, and the sum where top_k doesn't cut
  int32_t top_k = 0;           // 0: no cut
  float temperature = 1, top_p = 1, min_p = 0;
  uint32_t sequence = 0;
  uint64_t seed = 0;
  int64_t position = 0;
  int32_t* keep = nullptr;  // gets the token, too; null: nothing does
};
struct DrawnToken {
  double time = 0;     // the winner's, in the race
  int32_t token = -1;  // -1: nothing could be drawn
  int32_t index = -1;  // its place in the row
  float raw = 0;
  int32_t is_reached = 1;   // 0: all that top_p was given doesn't reach it
  float last_logit = 0;     // of a list of tokens: the last that no cut of top_k and top_p took away
  int32_t last_token = -1;  // whose that is
};

}  // namespace weft::cuda
