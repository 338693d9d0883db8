// A clock that stands still until a test moves it.
#pragma once

#include <atomic>
#include <cstdint>

#include "scheduler/clock.h"

namespace weft {

class ManualClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::FromUnixNanos(nanos_.load()); }
  void Advance(absl::Duration by) { nanos_.fetch_add(absl::ToInt64Nanoseconds(by)); }

 private:
  std::atomic<int64_t> nanos_{1'000'000'000'000'000'000};
};

}  // namespace weft
