// How many sequences may run at once, so that a step in which all of them draw a token leaves prompts their share of
// the time.
#pragma once

#include <optional>

#include "absl/time/time.h"
#include "scheduler/line_fit.h"

namespace weft {

struct RowPacerOptions {
  int max_rows = 1;
  absl::Duration max_step_time = absl::InfiniteDuration();  // of steps that only draw
};

// Learns from the steps before what a row costs beside what every step costs. No fewer rows than take as long as the
// rest of the step: below that, each row less would only waste the machine, whatever the bound.
class RowPacer {
 public:
  explicit RowPacer(const RowPacerOptions& options);

  int max_rows() const { return max_rows_; }

  // What a step took in which so many sequences drew a token, and that computed nothing else.
  void Observe(int num_rows, absl::Duration took);

 private:
  void Learn(int num_rows, double seconds);
  void Plan();

  const int most_;
  const double bound_;  // in seconds
  int max_rows_;
  // Means of the last steps.
  double rows_ = 0;
  double seconds_ = 0;
  LineFit seconds_by_rows_{/*least_spread=*/0.5};
  std::optional<double> slope_;  // of it, seconds a row; none: not known yet
};

}  // namespace weft
