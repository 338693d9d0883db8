#include "server/engine_metrics.h"

#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace weft {
namespace {

// By name and labels, in their order.
std::map<std::string, double> Values(const std::vector<prometheus::MetricFamily>& families) {
  std::map<std::string, double> values;
  for (const prometheus::MetricFamily& family : families) {
    for (const prometheus::ClientMetric& metric : family.metric) {
      std::string name = family.name;
      for (const auto& label : metric.label) absl::StrAppend(&name, " ", label.name, "=", label.value);
      values[name] = family.type == prometheus::MetricType::Gauge ? metric.gauge.value : metric.counter.value;
    }
  }
  return values;
}

// Two stages; the second does half of what the first does. Experts: the third gets most.
EngineStats AfterSeconds(int seconds) {
  EngineStats stats{.with_work = absl::Seconds(seconds), .ranks = {{.stage = 0}, {.stage = 1}}};
  stats.ranks[0].busy = absl::Seconds(seconds);
  stats.ranks[1].busy = absl::Seconds(seconds) / 2;
  stats.ranks[1].waiting_for_stages = absl::Seconds(seconds) / 2;
  stats.ranks[1].stages.ops[static_cast<size_t>(CommOp::kRecv)] = {
      .calls = seconds, .bytes = 10 * seconds, .waiting = absl::Seconds(seconds) / 2};
  stats.ranks[0].expert_tokens = {seconds, seconds, 2 * seconds};
  stats.ranks[0].weight_bytes = 1000;
  stats.ranks[1].kv_cache_bytes = 500;
  return stats;
}

TEST(EngineMetricsTest, ShowsRanksAndRatios) {
  EngineMetrics metrics;
  const auto values = Values(metrics.Families({AfterSeconds(8), {}}, absl::UnixEpoch()));
  const struct {
    const char* series;
    double value;
  } kCases[] = {
      {"weft_pipeline_work_seconds_total replica=0", 8},
      {"weft_pipeline_bubble_ratio replica=0", 0.25},
      {"weft_stage_imbalance_ratio replica=0", 8 / 6.0},
      {"weft_expert_imbalance_ratio replica=0", 1.5},
      {"weft_stage_busy_seconds_total replica=0 stage=0 rank=0", 8},
      {"weft_stage_busy_seconds_total replica=0 stage=1 rank=1", 4},
      {"weft_stage_waiting_seconds_total replica=0 stage=1 rank=1 peers=pipeline", 4},
      {"weft_stage_waiting_seconds_total replica=0 stage=1 rank=1 peers=tensor", 0},
      {"weft_stage_idle_seconds_total replica=0 stage=1 rank=1", 0},
      {"weft_collective_wait_seconds_total replica=0 rank=1 op=Recv", 4},
      {"weft_collective_calls_total replica=0 rank=1 op=Recv", 8},
      {"weft_collective_bytes_total replica=0 rank=1 op=Recv", 80},
      {"weft_expert_tokens_total replica=0 rank=0", 32},
      {"weft_rank_memory_bytes replica=0 rank=0 kind=weights", 1000},
      {"weft_rank_memory_bytes replica=0 rank=1 kind=kv_cache", 500},
  };
  for (const auto& [series, value] : kCases) {
    ASSERT_TRUE(values.contains(series)) << series;
    EXPECT_NEAR(values.at(series), value, 1e-9) << series;
  }
  EXPECT_FALSE(values.contains("weft_pipeline_bubble_ratio replica=1")) << "it has no engine";
  EXPECT_FALSE(values.contains("weft_collective_calls_total replica=0 rank=0 op=Recv")) << "it has done none";
  EXPECT_FALSE(values.contains("weft_expert_tokens_total replica=0 rank=1")) << "it has none";
}

TEST(EngineMetricsTest, RatiosAreOfTheLastSecondsForWhoeverLooksOften) {
  EngineMetrics metrics;
  // Full for ten seconds, looked at every 50 ms; then standing still with a batch in it.
  EngineStats stats{.ranks = {{.stage = 0}}};
  const auto bubble_at = [&](absl::Duration time) {
    stats.with_work = time;
    stats.ranks[0].busy = std::min(time, absl::Seconds(10));
    return Values(metrics.Families({stats}, absl::UnixEpoch() + time)).at("weft_pipeline_bubble_ratio replica=0");
  };
  for (absl::Duration time; time < absl::Seconds(20); time += absl::Milliseconds(50)) {
    const double bubble = bubble_at(time);
    const int second = static_cast<int>(absl::ToInt64Seconds(time));
    if (second < 10) {
      EXPECT_EQ(bubble, 0) << time;
    } else if (time == absl::Seconds(12)) {
      EXPECT_NEAR(bubble, 2 / 5.0, 1e-9);
    } else if (second >= 17) {
      EXPECT_EQ(bubble, 1) << time;
    }
  }
  // And seldom: of the time between.
  stats = {.ranks = {{.stage = 0}}};
  EngineMetrics seldom;
  for (const int minute : {1, 2}) {
    stats.with_work = absl::Minutes(minute);
    stats.ranks[0].busy = absl::Minutes(minute - 1) / 2;
    const auto values = Values(seldom.Families({stats}, absl::UnixEpoch() + absl::Minutes(minute)));
    EXPECT_NEAR(values.at("weft_pipeline_bubble_ratio replica=0"), minute == 1 ? 1 : 0.5, 1e-9);
  }
}

}  // namespace
}  // namespace weft
