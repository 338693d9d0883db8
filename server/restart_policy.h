// When a replica that died is started again, and when no more.
#pragma once

#include <algorithm>
#include <deque>
#include <optional>

#include "absl/time/time.h"

namespace weft {

struct RestartOptions {
  int limit = 5;  // a replica that died so often within the window stays down
  absl::Duration window = absl::Minutes(10);
  absl::Duration backoff = absl::Seconds(1);  // before the second restart within the window; then twice that, and so on
  absl::Duration max_backoff = absl::Seconds(30);
};

// Of one replica. A start that fails is a death too.
class RestartPolicy {
 public:
  explicit RestartPolicy(const RestartOptions& options) : options_(options) {}

  // It died: how long to wait before it is started again. The first time it needn't. None: it is in a crash loop.
  std::optional<absl::Duration> OnDeath(absl::Time now) {
    while (!deaths_.empty() && now - deaths_.front() >= options_.window) deaths_.pop_front();
    deaths_.push_back(now);
    const auto count = static_cast<int>(deaths_.size());
    if (count >= options_.limit) return std::nullopt;
    if (count == 1) return absl::ZeroDuration();
    constexpr int kMaxDoublings = 16;  // past any bound, and no overflow
    return std::min(options_.max_backoff, options_.backoff * (1 << std::min(count - 2, kMaxDoublings)));
  }

 private:
  const RestartOptions options_;
  std::deque<absl::Time> deaths_;  // within the window, oldest first
};

}  // namespace weft
