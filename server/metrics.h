// What operators see: Prometheus metrics of the front end, and of the scheduler by way of its Stats snapshot.
#pragma once

#include <array>
#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/engine_metrics.h"
#include "server/scheduler_metrics.h"

namespace weft {

// How a sequence (one choice of a request) ended. A client that goes away is an outcome of its own, not an error.
enum class Outcome { kStop, kLength, kCancelled, kError };

// Owns every metric of the process. Made before anything else, outlives everything that counts. Thread-safe; counting
// costs well under a microsecond and never waits for a reader.
class Metrics {
 public:
  Metrics();
  ~Metrics();

  // The body of GET /metrics, in the text format that ContentType() names.
  std::string Render() const;
  static absl::string_view ContentType() { return "text/plain; version=0.0.4; charset=utf-8"; }

  // Where the scheduler's numbers come from; all zeros until it is set. Must be safe on any thread and not wait.
  void SetStatsSource(std::function<SchedulerSnapshot()> source);

  // The sequence's life, told by its TokenStream.
  void CountPromptTokens(int64_t tokens);
  void CountGeneratedToken();
  void ObserveTimeToFirstToken(absl::Duration wait);
  void ObserveInterTokenLatency(absl::Duration gap);
  void ObserveTimePerOutputToken(absl::Duration mean);  // of one finished sequence of at least two tokens
  void ObserveEndToEnd(absl::Duration whole);
  void CountFinished(Outcome outcome);

  // A request refused before any token: `code` is one of our own code words, never a client's text.
  void CountRejected(absl::string_view code);

  // A file that was read anew: "api-keys", "tenants".
  void CountReload(absl::string_view file, bool is_valid);

  // The front ends' answers: 100 to 599; canonical gRPC codes 0 to 16.
  void CountHttpResponse(int status);
  void CountGrpcResponse(int code);

  // Once, while the server starts: "config", "tokenizer", "weights", "warm_up", ...
  void SetStartupSeconds(absl::string_view phase, absl::Duration took);

  // While it starts: how much of that is done, 0 to 1.
  void SetLoadingProgress(double done);

 private:
  prometheus::Registry registry_;
  mutable EngineMetrics engine_metrics_;  // remembers when it was last looked at
  mutable absl::Mutex mutex_;             // guards the source, not the numbers
  std::function<SchedulerSnapshot()> source_ ABSL_GUARDED_BY(mutex_);
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generated_tokens_;
  prometheus::Histogram& time_to_first_token_;
  prometheus::Histogram& inter_token_latency_;
  prometheus::Histogram& time_per_output_token_;
  prometheus::Histogram& end_to_end_;
  std::array<prometheus::Counter*, 4> finished_;  // by Outcome
  prometheus::Family<prometheus::Counter>& rejected_;
  std::array<prometheus::Counter*, 5> http_responses_;  // 1xx to 5xx
  prometheus::Family<prometheus::Counter>& grpc_responses_;
  prometheus::Family<prometheus::Counter>& reloads_;
  prometheus::Family<prometheus::Counter>& reload_failures_;
  prometheus::Family<prometheus::Gauge>& startup_seconds_;
  prometheus::Gauge& loading_progress_;
};

}  // namespace weft
