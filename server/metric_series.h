// One series of a metric, as prometheus-cpp wants it.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "prometheus/client_metric.h"

namespace weft {

using Labels = std::vector<prometheus::ClientMetric::Label>;

inline prometheus::ClientMetric Gauge(double value, Labels labels = {}) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  metric.gauge.value = value;
  return metric;
}

inline prometheus::ClientMetric Gauge(int64_t value, Labels labels = {}) {
  return Gauge(static_cast<double>(value), std::move(labels));
}

inline prometheus::ClientMetric Counter(double value, Labels labels = {}) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  metric.counter.value = value;
  return metric;
}

inline prometheus::ClientMetric Counter(int64_t value, Labels labels = {}) {
  return Counter(static_cast<double>(value), std::move(labels));
}

}  // namespace weft
