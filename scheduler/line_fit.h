// A line through points that come one after the other.
#pragma once

#include <algorithm>

namespace weft {

// Least squares over the last few hundred points: what lies further back counts less and less.
class LineFit {
 public:
  // Known once the x of the points differ from each other by `least_spread` (a standard deviation).
  explicit LineFit(double least_spread) : least_variance_(least_spread * least_spread) {}

  void Add(double x, double y) {
    constexpr double kMemory = 1. / 256;
    const double part = std::max(kMemory, 1. / ++num_points_);  // the first few count alike
    const double away = x - mean_x_;
    covariance_ = (covariance_ + away * (y - mean_y_) * part) * (1 - part);
    variance_ = (variance_ + away * away * part) * (1 - part);
    mean_x_ += away * part;
    mean_y_ += (y - mean_y_) * part;
  }

  bool is_known() const {
    constexpr int kFewest = 16;
    return num_points_ >= kFewest && variance_ >= least_variance_;
  }
  // Not below zero: nothing that is fitted here becomes less.
  double slope() const { return std::max(0., covariance_ / variance_); }
  double at_zero() const { return is_known() ? mean_y_ - slope() * mean_x_ : mean_y_; }

 private:
  const double least_variance_;
  int num_points_ = 0;
  double mean_x_ = 0, mean_y_ = 0, variance_ = 0, covariance_ = 0;
};

}  // namespace weft
