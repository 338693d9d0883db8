// How many prompt tokens a step may compute while others wait: for their next token, or for a place in a step.
#pragma once

#include <algorithm>
#include <cmath>

#include "absl/time/time.h"

namespace weft {

struct PrefillPacerOptions {
  int max_tokens = 0;                                       // a step
  double max_share = 0.5;                                   // of max_tokens, while others decode
  absl::Duration max_step_time = absl::InfiniteDuration();  // few steps take longer, whoever is in them
};

// Guesses what a prompt token costs, and how much that varies, from the steps before, as TCP guesses its round trips
// (RFC 6298: the mean plus four times the mean deviation): on a steady machine steps come close to the bound, on a
// noisy one they stay away from it. What that misses, steps that take much longer now and then, a margin learns that
// shrinks with each step beyond the bound and grows so slowly that one step in 200 may be. Grows by little, since a
// long step delays everybody, and shrinks at once. Below kMinTokens it doesn't go: a prompt must come to an end.
class PrefillPacer {
 public:
  explicit PrefillPacer(const PrefillPacerOptions& options)
      : most_(options.max_tokens),
        share_(std::max(1, static_cast<int>(options.max_share * options.max_tokens))),
        bound_(options.max_step_time),
        max_tokens_(bound_ == absl::InfiniteDuration() ? most_ : std::min(most_, kFirstTokens)) {}

  int max_tokens(bool others_decode) const { return others_decode ? std::min(share_, max_tokens_) : max_tokens_; }

  // What a step took that computed so many prompt tokens.
  void Observe(int prompt_tokens, absl::Duration took) {
    if (bound_ == absl::InfiniteDuration() || took <= absl::ZeroDuration()) return;
    if (prompt_tokens * 2 < max_tokens_) return;  // a small rest says little about a full step
    Learn(absl::ToDoubleSeconds(took) / prompt_tokens);
    margin_ = took > bound_ ? std::max(kLeastMargin, margin_ * kShrink) : std::min(1.0, margin_ * kRecovery);
    const double fitting = margin_ * absl::ToDoubleSeconds(bound_) / Estimate();
    const double wanted = std::min(fitting, kGrowth * max_tokens_);
    max_tokens_ = static_cast<int>(std::clamp<double>(wanted, std::min(kMinTokens, most_), most_));
  }

 private:
  static constexpr int kMinTokens = 16;
  static constexpr int kFirstTokens = 64;  // nothing is known yet
  static constexpr double kGrowth = 1.25;
  // Where the margin stands still, ln(kRecovery) / -ln(kShrink) = 1/200 of the steps are too long.
  static constexpr double kShrink = 0.9;
  static constexpr double kRecovery = 1.000527;
  static constexpr double kLeastMargin = 0.25;
  static constexpr double kMostSurprise = 2;  // one step that took forever is no news of the next

  double Estimate() const { return mean_ + 4 * deviation_; }

  void Learn(double seconds_a_token) {
    if (mean_ == 0) {
      mean_ = seconds_a_token;
      deviation_ = mean_ / 4;
      return;
    }
    const double seconds = std::min(seconds_a_token, kMostSurprise * Estimate());
    deviation_ += (std::abs(seconds - mean_) - deviation_) / 4;
    mean_ += (seconds - mean_) / 8;
  }

  const int most_;
  const int share_;  // of it, while others decode
  const absl::Duration bound_;
  int max_tokens_;
  double mean_ = 0;  // seconds a prompt token
  double deviation_ = 0;
  double margin_ = 1;  // of the bound, that a step is planned to take
};

}  // namespace weft
