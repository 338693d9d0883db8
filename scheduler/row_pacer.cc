#include "scheduler/row_pacer.h"

#include <algorithm>
#include <cmath>

namespace weft {

RowPacer::RowPacer(const RowPacerOptions& options)
    : most_(options.max_rows), bound_(absl::ToDoubleSeconds(options.max_step_time)), max_rows_(options.max_rows) {}

void RowPacer::Observe(int num_rows, absl::Duration took) {
  if (std::isinf(bound_) || num_rows <= 0 || took <= absl::ZeroDuration()) return;
  Learn(num_rows, absl::ToDoubleSeconds(took));
  // Few that are quick say little of what as many take as may run.
  if (rows_ * 2 >= max_rows_ || seconds_ > bound_) Plan();
}

void RowPacer::Learn(int num_rows, double seconds) {
  constexpr double kPart = 1. / 8;
  constexpr double kMostSurprise = 2;  // times the mean: one step that took forever is no news of the next
  if (seconds_ > 0) seconds = std::min(seconds, kMostSurprise * seconds_ * std::max(1., num_rows / rows_));
  const double part = seconds_ > 0 ? kPart : 1;
  rows_ += (num_rows - rows_) * part;
  seconds_ += (seconds - seconds_) * part;
  seconds_by_rows_.Add(num_rows, seconds);
  if (seconds_by_rows_.is_known() && seconds_by_rows_.slope() > 0) slope_ = seconds_by_rows_.slope();
}

// Shrinks at once, and grows by little: what a row costs is a guess where there were hardly ever more or fewer. So it
// stays near the rows that ran, until as many have been seen to run.
void RowPacer::Plan() {
  constexpr int kLeastToLearn = 4;  // so few that they are all the same say nothing of what a row costs
  constexpr double kLeastPart = 1. / 8;
  constexpr double kMostAhead = 1.5;
  const double mean = seconds_ / rows_;  // most that a row can cost: all of the step is the rows'
  const double row = slope_.has_value() ? std::clamp(*slope_, mean * kLeastPart, mean) : mean;
  const double rest = seconds_ - row * rows_;
  // Where rows are few and always the same, a slope of before is no reason to stay there.
  const double fewest = seconds_by_rows_.is_known() ? 1 : kLeastToLearn;
  const double least = slope_.has_value() ? std::max(fewest, rest / row) : fewest;
  const double wanted = std::max((bound_ - rest) / row, least);
  const double tried = std::max<double>(max_rows_, rows_ * kMostAhead + 1);
  max_rows_ = static_cast<int>(std::min<double>({wanted, max_rows_ + std::max(1., max_rows_ / 8.), tried, 1. * most_}));
}

}  // namespace weft
