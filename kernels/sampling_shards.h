// Drawing from rows of logits whose tokens are spread over ranks: what travels between them. Plain data.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/sampling.h"

namespace weft {

// Drawing from a row whose tokens are spread over ranks: rank r has tokens first_token .. first_token + cols of it. All
// ranks know the rule, so they know what each will say.
//
//   1. Each summarises its share (Backend::SummarizeRows). Gathered and merged, that gives the whole row's greatest
//      logit and its sum, the same on each rank.
//   2. Each picks candidates (Backend::PickCandidates): with no cut at top_k or top_p the one winner among its tokens,
//      as a token's time in the race depends on no other; else its best, as many as can matter.
//   3. All gathered, each rank draws (Backend::DrawFromCandidates). A nucleus (top_p) may prove to be wider than what
//      was gathered: the row is not drawn then, and more candidates are asked for.
struct RowSummary {
  float max = 0;            // after penalties and biases; -infinity: none is left here
  float raw_max = 0;        // as the logits came
  double sum = 0;           // of exp((logit - max) / temperature)
  double raw_sum = 0;       // of exp(logit - raw_max); set when log-probabilities are wanted
  float known_raw = 0;      // logit of SampleArgs::known; -infinity: not here
  int32_t finite = 1;       // 0: a NaN or +infinity
  int32_t num_tokens = 0;   // in this share
  int32_t most_tokens = 0;  // in the largest share
};

struct DrawCandidate {
  double time = 0;     // in the race, when nothing is cut
  float logit = 0;     // after penalties and biases
  float raw = 0;       // as it came
  int32_t token = -1;  // -1: there are no more
  int32_t reserved = 0;
};

// What is asked for of one row in steps 2 and 3: of each rank so many candidates for the draw, then so many by raw
// logit, for log-probabilities.
struct RowDraw {
  int num_best = 0;
  int num_top = 0;
  bool is_drawn = false;  // in an earlier attempt: nothing is asked for

  int num_candidates() const { return num_best + num_top; }
};

// A row that is not drawn yet asks for more at each attempt, counted from 0; `most_tokens`: in the largest share.
RowDraw DrawOf(const SampleArgs& args, int attempt, int most_tokens);

// The whole row's, from those of its shares in the order of ranks. known_raw is then that of the one rank that has it.
RowSummary MergeSummaries(absl::Span<const RowSummary> shares, const SampleArgs& args);

}  // namespace weft
