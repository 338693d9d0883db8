// A bound on tokens a minute that admits while anything is left, and lets what was admitted run into debt.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace weft {

// How many tokens a request will take isn't known when it is admitted, so the bound is kept on average: what one minute
// takes too much is missing from the next.
class TokenBucket {
 public:
  // To be called before anything else, with what holds now. The first call fills the bucket.
  void Refill(absl::Time now, int64_t tokens_per_minute) {
    const auto capacity = static_cast<double>(tokens_per_minute);
    const absl::Duration passed = std::max(now - last_, absl::ZeroDuration());  // clocks may jump
    level_ = filled_ ? std::min(capacity, level_ + capacity * absl::FDivDuration(passed, absl::Minutes(1))) : capacity;
    filled_ = true;
    last_ = now;
    capacity_ = capacity;
  }

  void Take(int64_t tokens) { level_ -= static_cast<double>(tokens); }

  bool HasTokens() const { return level_ > 0; }
  bool IsFull() const { return level_ >= capacity_; }
  // Until it has some again.
  absl::Duration Wait() const {
    return level_ > 0 ? absl::ZeroDuration() : absl::Minutes(1) * ((1 - level_) / capacity_);
  }

 private:
  double level_ = 0;
  double capacity_ = 0;
  absl::Time last_ = absl::InfinitePast();
  bool filled_ = false;
};

}  // namespace weft
