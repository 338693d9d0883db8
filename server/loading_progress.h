// How far loading a model is, from whoever loads it to whoever shows it.
#pragma once

#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/health_board.h"
#include "server/metrics.h"

namespace weft {

// What the loader calls; `done` is of the whole loading, 0 to 1, and never falls. Any of them may be null.
struct LoadingProgress {
  // A phase ended.
  std::function<void(absl::string_view phase, absl::Duration took, double done)> on_phase;
  // What a part of a phase took, told at its end: "weights_read" of "weights".
  std::function<void(absl::string_view part, absl::Duration took)> on_part;
  // In the middle of a long phase, of which `share` is done, 0 to 1. From any thread, one call at a time.
  std::function<void(absl::string_view phase, double share, double done)> on_share;
};

// Shows it: /health, weft_loading_progress_ratio and weft_startup_seconds, and the log; of the middle of a phase a line
// every 10 %, but none before a second has passed, and one after 5 s. Outlives the LoadingProgress that it makes.
// Thread-safe.
class LoadingReporter {
 public:
  LoadingReporter(HealthBoard& health, Metrics& metrics) : health_(health), metrics_(metrics) {}

  LoadingProgress Progress();

 private:
  void OnPhase(absl::string_view phase, absl::Duration took, double done);
  void OnShare(absl::string_view phase, double share, double done);

  HealthBoard& health_;
  Metrics& metrics_;
  absl::Mutex mutex_;
  std::string phase_ ABSL_GUARDED_BY(mutex_);      // of the last OnShare
  int shown_percent_ ABSL_GUARDED_BY(mutex_) = 0;  // of it
  int logged_percent_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time logged_at_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
