// How many prompt tokens a step may compute while other sequences wait for their next token.
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace weft {

struct PrefillPacerOptions {
  int max_tokens = 0;                                       // a step
  double max_share = 0.5;                                   // of max_tokens, while others decode
  absl::Duration max_step_time = absl::InfiniteDuration();  // ... and so that a step takes no longer than this
};

// A step that takes too long makes the next ones smaller in proportion, because a step's time is about proportional to
// its prompt tokens, whatever else depends on the context; a step that had time left makes them larger, but by little,
// since a long step delays everybody. Below kMinTokens it doesn't go: a prompt must come to an end.
class PrefillPacer {
 public:
  explicit PrefillPacer(const PrefillPacerOptions& options)
      : most_(std::max(kMinTokens, static_cast<int>(options.max_share * options.max_tokens))),
        aimed_at_(kAim * options.max_step_time),
        max_tokens_(aimed_at_ == absl::InfiniteDuration() ? most_ : std::min(most_, kFirstTokens)) {}

  int max_tokens() const { return max_tokens_; }

  // What a step took that computed so many prompt tokens while others decoded.
  void Observe(int prompt_tokens, absl::Duration took) {
    if (aimed_at_ == absl::InfiniteDuration() || prompt_tokens == 0 || took <= absl::ZeroDuration()) return;
    const double ratio = absl::FDivDuration(aimed_at_, took);
    const bool was_full = prompt_tokens * 10 >= max_tokens_ * 9;
    if (ratio >= 1 && !was_full) return;  // says little about a full one
    const double wanted = static_cast<double>(prompt_tokens) * std::min(ratio, kGrowth);
    max_tokens_ = std::clamp(static_cast<int>(wanted), std::min(kMinTokens, most_), most_);
  }

 private:
  static constexpr int kMinTokens = 16;
  static constexpr int kFirstTokens = 64;  // nothing is known yet
  static constexpr double kAim = 0.7;      // of the bound: steps of one size take different times
  static constexpr double kGrowth = 1.25;

  const int most_;
  const absl::Duration aimed_at_;
  int max_tokens_;
};

}  // namespace weft
