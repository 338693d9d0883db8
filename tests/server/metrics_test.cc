#include "server/metrics.h"

#include <chrono>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace weft {
namespace {

int CountLines(const std::string& text, absl::string_view prefix) {
  int count = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) count += absl::StartsWith(line, prefix) ? 1 : 0;
  return count;
}

// Routers read these and take the first series of each.
TEST(MetricsTest, TheRoutersGaugesHaveOneSeriesFromTheStart) {
  Metrics metrics;
  const std::string text = metrics.Render();
  for (const absl::string_view name :
       {"weft_num_requests_waiting", "weft_num_requests_running", "weft_kv_cache_usage_ratio"}) {
    EXPECT_EQ(CountLines(text, absl::StrCat(name, " ")), 1) << name;
    EXPECT_EQ(CountLines(text, absl::StrCat(name, "{")), 0) << name;
    EXPECT_EQ(CountLines(text, absl::StrCat("# TYPE ", name, " gauge")), 1) << name;
  }
}

TEST(MetricsTest, ShowsTheSchedulersNumbers) {
  Metrics metrics;
  Stats stats;
  stats.num_waiting = 2;
  stats.num_running = 3;
  stats.num_blocks = 8;
  stats.num_free_blocks = 6;
  stats.num_preemptions = 4;
  stats.step_seconds.Observe(0.0035);
  metrics.SetStatsSource([&stats] { return stats; }, [] { return 5; });
  const std::string text = metrics.Render();
  for (const absl::string_view line :
       {"weft_num_requests_waiting 7", "weft_num_requests_running 3", "weft_kv_cache_usage_ratio 0.25",
        "weft_preemptions_total 4", "weft_step_time_seconds_count 1", "weft_step_time_seconds_bucket{le=\"0.003\"} 0",
        "weft_step_time_seconds_bucket{le=\"0.004\"} 1", "weft_step_time_seconds_bucket{le=\"+Inf\"} 1"}) {
    EXPECT_EQ(CountLines(text, absl::StrCat(line, "\n").substr(0, line.size())), 1) << line << "\n" << text;
  }
}

TEST(MetricsTest, CountsWhatItIsTold) {
  Metrics metrics;
  metrics.CountPromptTokens(7);
  metrics.CountGeneratedToken();
  metrics.CountFinished(Outcome::kCancelled);
  metrics.CountRejected("server_overloaded");
  metrics.CountHttpResponse(404);
  metrics.CountHttpResponse(12);  // not a status
  metrics.CountGrpcResponse(8);
  metrics.ObserveInterTokenLatency(absl::Milliseconds(4));
  metrics.SetStartupSeconds("weights", absl::Seconds(2));
  const std::string text = metrics.Render();
  for (const absl::string_view line :
       {"weft_prompt_tokens_total 7", "weft_generation_tokens_total 1",
        "weft_requests_finished_total{outcome=\"cancelled\"} 1", "weft_requests_finished_total{outcome=\"error\"} 0",
        "weft_requests_rejected_total{code=\"server_overloaded\"} 1", "weft_http_responses_total{class=\"4xx\"} 1",
        "weft_grpc_responses_total{code=\"8\"} 1", "weft_inter_token_latency_seconds_bucket{le=\"0.004\"} 1",
        "weft_inter_token_latency_seconds_bucket{le=\"0.003\"} 0", "weft_startup_seconds{phase=\"weights\"} 2"}) {
    EXPECT_EQ(CountLines(text, line), 1) << line << "\n" << text;
  }
}

// Routers scrape every 50 ms. The bound is loose for sanitizer builds; the plain build takes a fraction.
TEST(MetricsTest, RendersQuickly) {
  Metrics metrics;
  const absl::Time start = absl::Now();
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(metrics.Render().empty());
  const absl::Duration each = (absl::Now() - start) / 20;
  RecordProperty("microseconds", static_cast<int>(absl::ToInt64Microseconds(each)));
  EXPECT_LT(each, absl::Milliseconds(50));
}

}  // namespace
}  // namespace weft
