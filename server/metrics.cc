#include "server/metrics.h"

#include <sstream>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "prometheus/gauge.h"
#include "prometheus/metric_family.h"
#include "prometheus/text_serializer.h"
#include "server/version.h"

namespace weft {
namespace {

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

}  // namespace

Metrics::Metrics()
    : prompt_tokens_(MakeCounter(registry_, "weft_prompt_tokens_total", "Prompt tokens of accepted requests.")),
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
      reloads_(prometheus::BuildCounter()
                   .Name("weft_reloads_total")
                   .Help("Files that were read anew and took effect.")
                   .Register(registry_)),
      reload_failures_(prometheus::BuildCounter()
                           .Name("weft_reload_failures_total")
                           .Help("Files that were read anew and refused, so that what they said before still holds.")
                           .Register(registry_)),
      startup_seconds_(prometheus::BuildGauge()
                           .Name("weft_startup_seconds")
                           .Help("Time that each phase of starting took.")
                           .Register(registry_)),
      loading_progress_(prometheus::BuildGauge()
                            .Name("weft_loading_progress_ratio")
                            .Help("How much of loading the model is done.")
                            .Register(registry_)
                            .Add({})) {
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
  for (const char* file : {"api-keys", "tenants"}) {  // so that a first failure is a step that an alert can see
    reloads_.Add({{"file", file}});
    reload_failures_.Add({{"file", file}});
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
  SchedulerSnapshot snapshot;
  {
    absl::MutexLock lock(&mutex_);
    if (source_) snapshot = source_();
  }
  std::vector<prometheus::MetricFamily> families = SchedulerFamilies(snapshot);
  std::vector<EngineStats> engines;
  for (SchedulerSnapshot::Replica& replica : snapshot.replicas) engines.push_back(std::move(replica.engine));
  for (prometheus::MetricFamily& family : engine_metrics_.Families(engines, absl::Now())) {
    families.push_back(std::move(family));
  }
  for (prometheus::MetricFamily& family : registry_.Collect()) families.push_back(std::move(family));
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return std::move(out).str();
}

void Metrics::SetStatsSource(std::function<SchedulerSnapshot()> source) {
  absl::MutexLock lock(&mutex_);
  source_ = std::move(source);
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

void Metrics::CountReload(absl::string_view file, bool is_valid) {
  (is_valid ? reloads_ : reload_failures_).Add({{"file", std::string(file)}}).Increment();
}

void Metrics::CountHttpResponse(int status) {
  if (status >= 100 && status < 600) http_responses_[static_cast<size_t>(status / 100 - 1)]->Increment();
}

void Metrics::CountGrpcResponse(int code) { grpc_responses_.Add({{"code", std::to_string(code)}}).Increment(); }

void Metrics::SetStartupSeconds(absl::string_view phase, absl::Duration took) {
  startup_seconds_.Add({{"phase", std::string(phase)}}).Set(absl::ToDoubleSeconds(took));
}

void Metrics::SetLoadingProgress(double done) { loading_progress_.Set(done); }

}  // namespace weft
