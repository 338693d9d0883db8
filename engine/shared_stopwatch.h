// A stopwatch that one thread starts and stops, and any may read, without either waiting for the other.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "absl/time/time.h"

namespace weft {

// A monotonic clock; tests have one of their own.
using SteadyNow = std::chrono::steady_clock::time_point (*)();

class SharedStopwatch {
 public:
  explicit SharedStopwatch(SteadyNow now = &std::chrono::steady_clock::now) : now_(now) {}

  // For one thread, in turns.
  void Start() { nanoseconds_.store(nanoseconds_.load() - Nanoseconds()); }
  void Stop() { nanoseconds_.store(nanoseconds_.load() + Nanoseconds()); }

  // All that it ran; so far, where it runs.
  absl::Duration Total() const {
    int64_t seen, now;
    do {  // the moment of the clock is one at which it was as seen
      seen = nanoseconds_.load();
      now = Nanoseconds();
    } while (nanoseconds_.load() != seen);
    return absl::Nanoseconds(seen < 0 ? seen + now : seen);
  }

 private:
  int64_t Nanoseconds() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now_().time_since_epoch()).count();
  }

  const SteadyNow now_;
  // While it stands, the total; while it runs, the total less the moment when it was started. The clock began before
  // the process, and so has counted more than any total: the sign tells which.
  std::atomic<int64_t> nanoseconds_{0};
};

}  // namespace weft
