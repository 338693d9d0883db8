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
  stats.num_running = 3;
  stats.num_blocks = 8;
  stats.num_free_blocks = 6;
  stats.num_cached_blocks = 2;
  stats.num_evictions = 5;
  stats.num_preemptions = {4, 0, 1};
  stats.num_steps = 10;
  stats.step_seconds.Observe(0.0035);
  stats.scheduler_seconds.Observe(0.00003);
  SchedulerSnapshot snapshot;
  snapshot.replicas = {{stats, true}, {stats, true}, {stats, false}};
  snapshot.queue.tenants = {{.name = "a", .num_waiting = {1, 2, 4}, .num_running = 6, .has_policy = true}};
  snapshot.queue.fairness_gap = 12.5;
  metrics.SetStatsSource([&snapshot] { return snapshot; });
  const std::string text = metrics.Render();
  for (const absl::string_view line : {
           "weft_num_requests_waiting 7",
           "weft_num_requests_running 6",  // those of the dead one run elsewhere
           "weft_kv_cache_usage_ratio 0.25",
           "weft_kv_cache_blocks 16",
           "weft_steps_total 30",  // what was counted stays
           "weft_kv_cache_evictions_total 15",
           "weft_preemptions_total{reason=\"blocks\"} 12",
           "weft_preemptions_total{reason=\"priority\"} 0",
           "weft_preemptions_total{reason=\"fairness\"} 3",
           "weft_kv_blocks{state=\"free\",replica=\"1\"} 4",
           "weft_kv_blocks{state=\"cached\",replica=\"1\"} 2",
           "weft_kv_blocks{state=\"held\",replica=\"1\"} 2",
           "weft_replica_up{replica=\"1\"} 1",
           "weft_replica_up{replica=\"2\"} 0",
           "weft_replica_running_requests{replica=\"0\"} 3",
           "weft_replica_running_requests{replica=\"2\"} 0",
           "weft_scheduler_step_seconds_count{replica=\"0\"} 1",
           "weft_step_time_seconds_count 3",
           "weft_step_time_seconds_bucket{le=\"0.003\"} 0",
           "weft_step_time_seconds_bucket{le=\"0.004\"} 3",
           "weft_step_time_seconds_bucket{le=\"+Inf\"} 3",
           "weft_queue_requests{tenant=\"a\",priority=\"low\"} 1",
           "weft_queue_requests{tenant=\"a\",priority=\"high\"} 4",
           "weft_tenant_running_requests{tenant=\"a\"} 6",
           "weft_fairness_gap_tokens 12.5",
       }) {
    EXPECT_EQ(CountLines(text, line), 1) << line << "\n" << text;
  }
  EXPECT_EQ(CountLines(text, "weft_kv_blocks{state=\"free\",replica=\"2\"}"), 0) << "a dead one has none";
}

// Tenants come from clients of a gateway, without end; series may not.
TEST(MetricsTest, NamesTenantsThatHaveAPolicyAndSumsUpTheOthers) {
  Metrics metrics;
  SchedulerSnapshot snapshot;
  for (int i = 1; i <= 200; ++i) {
    snapshot.queue.tenants.push_back(
        {.name = absl::StrCat("t", i), .num_waiting = {0, i, 0}, .num_running = 1, .has_policy = i % 2 == 0});
  }
  snapshot.queue.tenants.push_back(
      {.name = "other", .num_waiting = {0, 1000, 0}, .num_running = 1, .has_policy = true});
  metrics.SetStatsSource([&snapshot] { return snapshot; });
  const std::string text = metrics.Render();
  EXPECT_EQ(CountLines(text, "weft_tenant_running_requests{"), 100);  // 99 by name, "other" itself being the busiest
  EXPECT_EQ(CountLines(text, "weft_queue_requests{tenant=\"t4\",priority=\"normal\"} 4"), 1);
  EXPECT_EQ(CountLines(text, "weft_queue_requests{tenant=\"t199\""), 0) << "busy, but nobody has named it";
  EXPECT_EQ(CountLines(text, "weft_queue_requests{tenant=\"t2\""), 0) << "there is no end of names";
  // 1 + 3 + ... + 199, t2, and what a tenant called "other" has.
  EXPECT_EQ(CountLines(text, "weft_queue_requests{tenant=\"other\",priority=\"normal\"} 11002"), 1) << text;
  EXPECT_EQ(CountLines(text, "weft_tenant_running_requests{tenant=\"other\"} 102"), 1);
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
  metrics.CountReload("tenants", true);
  metrics.CountReload("tenants", false);
  const std::string text = metrics.Render();
  for (const absl::string_view line :
       {"weft_prompt_tokens_total 7", "weft_generation_tokens_total 1",
        "weft_requests_finished_total{outcome=\"cancelled\"} 1", "weft_requests_finished_total{outcome=\"error\"} 0",
        "weft_requests_rejected_total{code=\"server_overloaded\"} 1", "weft_http_responses_total{class=\"4xx\"} 1",
        "weft_grpc_responses_total{code=\"8\"} 1", "weft_inter_token_latency_seconds_bucket{le=\"0.004\"} 1",
        "weft_inter_token_latency_seconds_bucket{le=\"0.003\"} 0", "weft_reloads_total{file=\"tenants\"} 1",
        "weft_reload_failures_total{file=\"tenants\"} 1", "weft_reload_failures_total{file=\"api-keys\"} 0",
        "weft_startup_seconds{phase=\"weights\"} 2"}) {
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
