#include "server/metrics.h"

#include <limits>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "prometheus/gauge.h"
#include "prometheus/metric_family.h"
#include "prometheus/text_serializer.h"
#include "server/version.h"

namespace weft {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr absl::string_view kOutcomeNames[] = {"stop", "length", "cancelled", "error"};
constexpr absl::string_view kStatusClasses[] = {"1xx", "2xx", "3xx", "4xx", "5xx"};

prometheus::Counter& MakeCounter(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

template <size_t kNumBounds>
prometheus::Histogram& MakeHistogram(prometheus::Registry& registry, const char* name, const char* help,
                                     const std::array<double, kNumBounds>& bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(
      {}, prometheus::Histogram::BucketBoundaries(bounds.begin(), bounds.end()));
}

MetricFamily GaugeFamily(const char* name, const char* help, double value) {
  ClientMetric metric;
  metric.gauge.value = value;
  return {name, help, MetricType::Gauge, {metric}};
}

MetricFamily CounterFamily(const char* name, const char* help, int64_t value) {
  ClientMetric metric;
  metric.counter.value = static_cast<double>(value);
  return {name, help, MetricType::Counter, {metric}};
}

template <size_t kNumBounds>
MetricFamily HistogramFamily(const char* name, const char* help, const FixedHistogram<kNumBounds>& histogram) {
  ClientMetric metric;
  uint64_t count = 0;
  for (size_t i = 0; i <= kNumBounds; ++i) {
    count += static_cast<uint64_t>(histogram.counts[i]);
    const double bound = i < kNumBounds ? histogram.bounds[i] : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back({count, bound});
  }
  metric.histogram.sample_count = count;
  metric.histogram.sample_sum = histogram.sum;
  return {name, help, MetricType::Histogram, {metric}};
}

}  // namespace

// Turns a snapshot of the scheduler's numbers into families, one series each.
class Metrics::SchedulerNumbers {
 public:
  void SetSource(std::function<Stats()> stats, std::function<int()> num_waiting) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    stats_ = std::move(stats);
    num_waiting_ = std::move(num_waiting);
  }

  std::vector<MetricFamily> Collect() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    const Stats stats = stats_ ? stats_() : Stats();
    const int64_t num_waiting = stats.num_waiting + (num_waiting_ ? num_waiting_() : 0);
    return {
        GaugeFamily("weft_num_requests_waiting", "Sequences that wait for their first or next step.",
                    static_cast<double>(num_waiting)),
        GaugeFamily("weft_num_requests_running", "Sequences that hold a slot.", static_cast<double>(stats.num_running)),
        GaugeFamily("weft_kv_cache_usage_ratio", "Share of KV blocks in use, 0 to 1.", stats.KvCacheUsage()),
        GaugeFamily("weft_kv_cache_blocks", "KV blocks, free or in use.", static_cast<double>(stats.num_blocks)),
        GaugeFamily("weft_kv_cache_cached_blocks", "KV blocks in no use whose content may be taken up.",
                    static_cast<double>(stats.num_cached_blocks)),
        CounterFamily("weft_kv_cache_evictions_total", "Cached KV blocks that were given other content.",
                      stats.num_evictions),
        CounterFamily("weft_prefix_cache_queries_total", "Prompt tokens of sequences that began to run.",
                      stats.num_prompt_tokens),
        CounterFamily("weft_prefix_cache_hits_total", "Of these, tokens that were not computed but taken up.",
                      stats.num_cached_tokens),
        CounterFamily("weft_preemptions_total", "Sequences that gave up their KV blocks to an older one.",
                      stats.num_preemptions),
        CounterFamily("weft_steps_total", "Steps of the engine.", stats.num_steps),
        CounterFamily("weft_computed_tokens_total", "Tokens computed, recomputation after preemption included.",
                      stats.num_tokens_computed),
        HistogramFamily("weft_step_time_seconds", "The engine's time on one step.", stats.step_seconds),
        HistogramFamily("weft_batch_size", "Sequences in one step.", stats.batch_rows),
        HistogramFamily("weft_batch_tokens", "Tokens in one step.", stats.batch_tokens),
        HistogramFamily("weft_queue_time_seconds", "From arrival to the first step that computes the sequence.",
                        stats.queue_seconds),
    };
  }

 private:
  mutable absl::Mutex mutex_;  // guards the sources, not the numbers
  std::function<Stats()> stats_ ABSL_GUARDED_BY(mutex_);
  std::function<int()> num_waiting_ ABSL_GUARDED_BY(mutex_);
};

Metrics::Metrics()
    : scheduler_(std::make_unique<SchedulerNumbers>()),
      prompt_tokens_(MakeCounter(registry_, "weft_prompt_tokens_total", "Prompt tokens of accepted requests.")),
      generated_tokens_(MakeCounter(registry_, "weft_generation_tokens_total", "Tokens handed to requests.")),
      time_to_first_token_(MakeHistogram(registry_, "weft_time_to_first_token_seconds",
                                         "From arrival to a sequence's first token.", kLongTimeBounds)),
      inter_token_latency_(MakeHistogram(registry_, "weft_inter_token_latency_seconds",
                                         "Between two tokens of a sequence; one observation a gap.", kShortTimeBounds)),
      time_per_output_token_(MakeHistogram(registry_, "weft_request_time_per_output_token_seconds",
                                           "Mean gap of a finished sequence.", kShortTimeBounds)),
      end_to_end_(MakeHistogram(registry_, "weft_e2e_request_latency_seconds", "From arrival to a sequence's end.",
                                kLongTimeBounds)),
      rejected_(prometheus::BuildCounter()
                    .Name("weft_requests_rejected_total")
                    .Help("Requests refused before any token, by error code.")
                    .Register(registry_)),
      grpc_responses_(prometheus::BuildCounter()
                          .Name("weft_grpc_responses_total")
                          .Help("Calls answered over gRPC, by canonical status code.")
                          .Register(registry_)),
      startup_seconds_(prometheus::BuildGauge()
                           .Name("weft_startup_seconds")
                           .Help("Time that each phase of starting took.")
                           .Register(registry_)) {
  prometheus::Family<prometheus::Counter>& finished = prometheus::BuildCounter()
                                                          .Name("weft_requests_finished_total")
                                                          .Help("Sequences that ended, by outcome.")
                                                          .Register(registry_);
  for (size_t i = 0; i < finished_.size(); ++i) {
    finished_[i] = &finished.Add({{"outcome", std::string(kOutcomeNames[i])}});
  }
  prometheus::Family<prometheus::Counter>& http = prometheus::BuildCounter()
                                                      .Name("weft_http_responses_total")
                                                      .Help("Requests answered over HTTP, by status class.")
                                                      .Register(registry_);
  for (size_t i = 0; i < http_responses_.size(); ++i) {
    http_responses_[i] = &http.Add({{"class", std::string(kStatusClasses[i])}});
  }
  prometheus::BuildGauge()
      .Name("weft_build_info")
      .Help("Always 1; what runs is in the labels.")
      .Register(registry_)
      .Add({{"version", std::string(Version())}, {"build", std::string(BuildInfo())}})
      .Set(1);
}

Metrics::~Metrics() = default;

std::string Metrics::Render() const {
  std::vector<MetricFamily> families = scheduler_->Collect();
  for (MetricFamily& family : registry_.Collect()) families.push_back(std::move(family));
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return std::move(out).str();
}

void Metrics::SetStatsSource(std::function<Stats()> stats, std::function<int()> num_waiting) {
  scheduler_->SetSource(std::move(stats), std::move(num_waiting));
}

void Metrics::CountPromptTokens(int64_t tokens) { prompt_tokens_.Increment(static_cast<double>(tokens)); }
void Metrics::CountGeneratedToken() { generated_tokens_.Increment(); }

void Metrics::ObserveTimeToFirstToken(absl::Duration wait) {
  time_to_first_token_.Observe(absl::ToDoubleSeconds(wait));
}
void Metrics::ObserveInterTokenLatency(absl::Duration gap) { inter_token_latency_.Observe(absl::ToDoubleSeconds(gap)); }
void Metrics::ObserveTimePerOutputToken(absl::Duration mean) {
  time_per_output_token_.Observe(absl::ToDoubleSeconds(mean));
}
void Metrics::ObserveEndToEnd(absl::Duration whole) { end_to_end_.Observe(absl::ToDoubleSeconds(whole)); }

void Metrics::CountFinished(Outcome outcome) { finished_[static_cast<size_t>(outcome)]->Increment(); }

void Metrics::CountRejected(absl::string_view code) { rejected_.Add({{"code", std::string(code)}}).Increment(); }

void Metrics::CountHttpResponse(int status) {
  if (status >= 100 && status < 600) http_responses_[static_cast<size_t>(status / 100 - 1)]->Increment();
}

void Metrics::CountGrpcResponse(int code) { grpc_responses_.Add({{"code", std::to_string(code)}}).Increment(); }

void Metrics::SetStartupSeconds(absl::string_view phase, absl::Duration took) {
  startup_seconds_.Add({{"phase", std::string(phase)}}).Set(absl::ToDoubleSeconds(took));
}

}  // namespace weft
