// How long a step may take before it is taken for hung.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>

#include "absl/time/time.h"

namespace weft {

// Longer than `least`, and many times as long as steps of as many tokens took. One that has more than any before may
// take some times as long as it would in proportion, which is more than it can need: the first tokens of a step cost
// the most. Steps are told apart by their tokens, so that a thousand short ones don't let a long one be forgotten.
class StepDeadline {
 public:
  explicit StepDeadline(absl::Duration least) : least_(least) {}

  absl::Duration Allowed(int num_tokens) const {
    constexpr int kTimesLonger = 20;
    constexpr int kTimesProportion = 4;
    constexpr int kTimesLongerAtFirst = 10;  // pages are touched, caches filled, nothing is known
    const absl::Duration seen = Seen(num_tokens);
    const absl::Duration usual =
        seen > absl::ZeroDuration() ? seen * kTimesLonger : InProportion(num_tokens) * kTimesProportion;
    return std::max(usual, num_steps_ < kNumFirstSteps ? least_ * kTimesLongerAtFirst : least_);
  }

  // When the deadline has passed, the step still has so long: the machine may have slept, or its clock was set.
  static absl::Duration Grace(absl::Duration allowed) { return std::max(absl::Milliseconds(500), allowed / 10); }

  void Observe(absl::Duration took, int num_tokens) {
    constexpr double kFading = 0.999;  // what was slow once is forgotten in some thousand steps of its size
    absl::Duration& longest = longest_[SizeOf(num_tokens)];
    longest = std::max(took, longest * kFading);
    ++num_steps_;
  }

 private:
  static constexpr int kNumFirstSteps = 3;
  static constexpr size_t kNumSizes = 32;  // powers of two

  static size_t SizeOf(int num_tokens) { return std::bit_width(static_cast<unsigned>(std::max(1, num_tokens))) - 1u; }

  // Steps of this size; where there was none, larger ones.
  absl::Duration Seen(int num_tokens) const {
    const size_t size = SizeOf(num_tokens);
    if (longest_[size] > absl::ZeroDuration()) return longest_[size];
    return *std::max_element(longest_.begin() + static_cast<int>(size), longest_.end());
  }

  // To what the next smaller size took.
  absl::Duration InProportion(int num_tokens) const {
    const size_t size = SizeOf(num_tokens);
    for (size_t smaller = size; smaller-- > 0;) {
      if (longest_[smaller] > absl::ZeroDuration()) return longest_[smaller] * (int64_t{1} << (size - smaller));
    }
    return absl::ZeroDuration();
  }

  const absl::Duration least_;
  std::array<absl::Duration, kNumSizes> longest_;  // by size
  int num_steps_ = 0;
};

}  // namespace weft
