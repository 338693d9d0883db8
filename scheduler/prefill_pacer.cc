#include "scheduler/prefill_pacer.h"

#include <cmath>

namespace weft {
namespace {

constexpr int kMinTokens = 8;
constexpr int kFirstTokens = 64;  // nothing is known yet
constexpr double kGrowth = 1.25;  // of max_tokens, from one step to the next
// Where the margin stands still, ln(kRecovery) / -ln(kShrink) = 1/200 of the steps are too long.
constexpr double kShrink = 0.9;
constexpr double kRecovery = 1.000527;
constexpr double kLeastMargin = 0.25;
constexpr double kMostSurprise = 2;      // times what was expected: one step that took forever is no news of the next
constexpr double kMostGrowth = 1. / 16;  // a position

void Approach(double& mean, double value, double part) { mean += (value - mean) * part; }

}  // namespace

PrefillPacer::PrefillPacer(const PrefillPacerOptions& options)
    : most_(options.max_tokens),
      share_(std::max(1, static_cast<int>(options.max_share * options.max_tokens))),
      bound_(absl::ToDoubleSeconds(options.max_step_time)),
      max_tokens_(std::isinf(bound_) ? most_ : std::min(most_, kFirstTokens)) {}

void PrefillPacer::Observe(const PromptWork& work, absl::Duration took) {
  if (std::isinf(bound_) || took <= absl::ZeroDuration()) return;
  const double seconds = absl::ToDoubleSeconds(took);
  if (work.num_tokens == 0) return LearnOthers(seconds);
  const double position = work.mean_position();
  // A small rest says little about a full step.
  if (work.num_tokens * Cost(position) * 2 < max_tokens(/*others_decode=*/true)) return;
  const double each = std::max(seconds - others_, seconds / 8) / work.num_tokens;
  LearnGrowth(position, each);
  LearnPrice(each / Cost(position));
  Plan(seconds > bound_);
}

void PrefillPacer::LearnOthers(double seconds) {
  if (others_ == 0) others_ = seconds;
  Approach(others_, std::min(seconds, kMostSurprise * others_), 1. / 8);
}

void PrefillPacer::LearnGrowth(double position, double seconds) {
  if (mean_ > 0) seconds = std::min(seconds, kMostSurprise * Estimate() * Cost(position));
  seconds_by_position_.Add(position, seconds);
  const double at_zero = seconds_by_position_.at_zero();
  if (!seconds_by_position_.is_known() || at_zero <= 0) return;
  growth_ = std::min(seconds_by_position_.slope() / at_zero, kMostGrowth);
}

void PrefillPacer::LearnPrice(double seconds) {
  if (mean_ == 0) {
    mean_ = seconds;
    deviation_ = mean_ / 4;
    return;
  }
  seconds = std::min(seconds, kMostSurprise * Estimate());
  Approach(deviation_, std::abs(seconds - mean_), 1. / 4);
  Approach(mean_, seconds, 1. / 8);
}

void PrefillPacer::Plan(bool was_too_long) {
  margin_ = was_too_long ? std::max(kLeastMargin, margin_ * kShrink) : std::min(1.0, margin_ * kRecovery);
  const double fitting = (margin_ * bound_ - others_) / Estimate();
  const double wanted = std::min(fitting, kGrowth * max_tokens_);
  max_tokens_ = static_cast<int>(std::clamp<double>(wanted, std::min(kMinTokens, most_), most_));
}

}  // namespace weft
