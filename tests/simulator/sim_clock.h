// Virtual time. What happens when is ordered by microseconds that only grow; what the scheduler reads may jump.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"
#include "scheduler/clock.h"

namespace weft {

class SimClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::FromUnixMicros(now_us_) + offset_; }
  int64_t now_us() const { return now_us_; }

  void AdvanceTo(int64_t us) {
    now_us_ = us;
    latest_ = std::max(latest_, Now());
  }
  void Jump(absl::Duration by) {
    offset_ += by;
    latest_ = std::max(latest_, Now());
  }
  absl::Time latest() const { return latest_; }  // that anybody can have read

 private:
  int64_t now_us_ = 0;
  absl::Duration offset_ = absl::Hours(500000);
  absl::Time latest_ = absl::InfinitePast();
};

}  // namespace weft
