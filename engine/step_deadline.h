// How long a step may take before it is taken for hung.
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace weft {

// Longer than `least`, and many times as long as others took; more than others have, a step may take in proportion.
class StepDeadline {
 public:
  explicit StepDeadline(absl::Duration least) : least_(least) {}

  absl::Duration Allowed(int num_tokens) const {
    constexpr int kTimesLonger = 20;
    constexpr int kTimesLongerAtFirst = 10;  // pages are touched, caches filled, nothing is known
    if (num_steps_ < kNumFirstSteps) return least_ * kTimesLongerAtFirst;
    const double share = std::max(1.0, static_cast<double>(num_tokens) / most_tokens_);
    return std::max(least_, longest_ * kTimesLonger * share);
  }

  void Observe(absl::Duration took, int num_tokens) {
    constexpr double kFading = 0.999;  // what was slow once is forgotten in some thousand steps
    longest_ = std::max(took, longest_ * kFading);
    most_tokens_ = std::max(most_tokens_, num_tokens);
    ++num_steps_;
  }

 private:
  static constexpr int kNumFirstSteps = 3;

  const absl::Duration least_;
  absl::Duration longest_;
  int most_tokens_ = 1;
  int num_steps_ = 0;
};

}  // namespace weft
