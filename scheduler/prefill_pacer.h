// How many prompt tokens a step may compute while others wait: for their next token, or for a place in a step.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"
#include "scheduler/line_fit.h"

namespace weft {

struct PrefillPacerOptions {
  int max_tokens = 0;                                       // a step
  double max_share = 0.5;                                   // of max_tokens, while others decode
  absl::Duration max_step_time = absl::InfiniteDuration();  // few steps take longer, whoever is in them
};

// Prompt tokens of one step.
struct PromptWork {
  int num_tokens = 0;
  int64_t sum_of_positions = 0;

  void Add(int count, int first_position) {
    num_tokens += count;
    sum_of_positions += static_cast<int64_t>(count) * first_position + static_cast<int64_t>(count) * (count - 1) / 2;
  }
  double mean_position() const { return static_cast<double>(sum_of_positions) / num_tokens; }
};

// Learns from the steps before what a step costs: what those who decode take, and for each prompt token a time that
// grows with its position, since it attends to all before it. Late in a long prompt a token may cost several times what
// the first did; one price for all would be wrong for both where long and short prompts meet.
//
// How much that varies is learned as TCP learns it of its round trips (RFC 6298: the mean plus four times the mean
// deviation): on a steady machine steps come close to the bound, on a noisy one they stay away from it. What that
// misses, steps that take much longer now and then, a margin learns that shrinks with each step beyond the bound and
// grows so slowly that one step in 200 may be. Grows by little, since a long step delays everybody, and shrinks at
// once. Below kMinTokens it doesn't go: a prompt must come to an end.
class PrefillPacer {
 public:
  explicit PrefillPacer(const PrefillPacerOptions& options);

  // ... at position 0; one at a later position counts for Cost of them.
  int max_tokens(bool others_decode) const { return others_decode ? std::min(share_, max_tokens_) : max_tokens_; }
  double Cost(double position) const { return 1 + growth_ * position; }

  // What a step took that computed such prompt tokens, or none.
  void Observe(const PromptWork& work, absl::Duration took);

 private:
  double Estimate() const { return mean_ + 4 * deviation_; }
  void LearnOthers(double seconds);
  void LearnGrowth(double position, double seconds);
  void LearnPrice(double seconds);
  void Plan(bool was_too_long);

  const int most_;
  const int share_;     // of it, while others decode
  const double bound_;  // in seconds
  int max_tokens_;
  double others_ = 0;  // seconds of a step without prompts
  double mean_ = 0;    // seconds a prompt token at position 0
  double deviation_ = 0;
  double margin_ = 1;  // of the bound, that a step is planned to take
  // Prompts that are all at one place say nothing of others.
  LineFit seconds_by_position_{/*least_spread=*/32};
  double growth_ = 0;  // its slope, in tokens at position 0
};

}  // namespace weft
