#include "server/engine_metrics.h"

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>

#include "server/metric_series.h"

namespace weft {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr absl::Duration kBetweenLooks = absl::Seconds(1);  // that are remembered

MetricFamily Family(const char* name, const char* help, MetricType type) { return {name, help, type, {}}; }

// Of all that is labelled by rank.
struct RankFamilies {
  MetricFamily busy = Family("weft_stage_busy_seconds_total",
                             "A rank's time in steps in which it did not wait for others.", MetricType::Counter);
  MetricFamily waiting = Family(
      "weft_stage_waiting_seconds_total",
      "A rank's time in steps in which it waited: for ranks of its stage (tensor) or for other stages (pipeline).",
      MetricType::Counter);
  MetricFamily idle = Family("weft_stage_idle_seconds_total",
                             "A rank's time between steps, as none was there to begin.", MetricType::Counter);
  MetricFamily op_waits =
      Family("weft_collective_wait_seconds_total",
             "A rank's time in which it waited for others, by what it did with them.", MetricType::Counter);
  MetricFamily op_calls =
      Family("weft_collective_calls_total", "What a rank did with others, by kind.", MetricType::Counter);
  MetricFamily op_bytes =
      Family("weft_collective_bytes_total", "Bytes that a rank gave to it, or got.", MetricType::Counter);
  MetricFamily experts =
      Family("weft_expert_tokens_total", "Tokens that came to a rank's experts, once for each layer and expert.",
             MetricType::Counter);
  MetricFamily memory =
      Family("weft_rank_memory_bytes", "A rank's device memory, by what it holds.", MetricType::Gauge);

  void Add(const std::string& replica, const std::string& rank, const RankStats& stats);
  void AddOps(const Labels& of_rank, const CommStats& stats);
};

Labels With(Labels labels, const char* name, std::string value) {
  labels.push_back({name, std::move(value)});
  return labels;
}

void RankFamilies::Add(const std::string& replica, const std::string& rank, const RankStats& stats) {
  const Labels of_rank = {{"replica", replica}, {"rank", rank}};
  const Labels in_stage = {{"replica", replica}, {"stage", std::to_string(stats.stage)}, {"rank", rank}};
  busy.metric.push_back(Counter(absl::ToDoubleSeconds(stats.busy), in_stage));
  waiting.metric.push_back(Counter(absl::ToDoubleSeconds(stats.waiting_in_stage), With(in_stage, "peers", "tensor")));
  waiting.metric.push_back(
      Counter(absl::ToDoubleSeconds(stats.waiting_for_stages), With(in_stage, "peers", "pipeline")));
  idle.metric.push_back(Counter(absl::ToDoubleSeconds(stats.idle), in_stage));
  AddOps(of_rank, stats.tensor_group);
  AddOps(of_rank, stats.stages);
  if (!stats.expert_tokens.empty()) {
    const int64_t tokens = std::accumulate(stats.expert_tokens.begin(), stats.expert_tokens.end(), int64_t{0});
    experts.metric.push_back(Counter(tokens, of_rank));
  }
  memory.metric.push_back(Gauge(stats.weight_bytes, With(of_rank, "kind", "weights")));
  memory.metric.push_back(Gauge(stats.kv_cache_bytes, With(of_rank, "kind", "kv_cache")));
}

// A rank does other ops with its stage than with other stages; it has a series of those that it does.
void RankFamilies::AddOps(const Labels& of_rank, const CommStats& stats) {
  for (size_t i = 0; i < kNumCommOps; ++i) {
    const CommOpStats& op = stats.ops[i];
    if (op.calls == 0) continue;
    const Labels labels = With(of_rank, "op", std::string(CommOpName(static_cast<CommOp>(i))));
    op_waits.metric.push_back(Counter(absl::ToDoubleSeconds(op.waiting), labels));
    op_calls.metric.push_back(Counter(op.calls, labels));
    op_bytes.metric.push_back(Counter(op.bytes, labels));
  }
}

}  // namespace

std::vector<EngineStats> EngineMetrics::LastSeconds(const std::vector<EngineStats>& replicas, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  while (looks_.size() > 1 && now - looks_[1].at >= kWindow) looks_.pop_front();
  std::vector<EngineStats> earlier;
  if (!looks_.empty() && now - looks_.front().at >= kWindow) earlier = looks_.front().replicas;
  if (looks_.empty() || now - looks_.back().at >= kBetweenLooks) looks_.push_back({now, replicas});
  earlier.resize(replicas.size());
  std::vector<EngineStats> periods;
  for (size_t i = 0; i < replicas.size(); ++i) periods.push_back(Since(earlier[i], replicas[i]));
  return periods;
}

std::vector<MetricFamily> EngineMetrics::Families(const std::vector<EngineStats>& replicas, absl::Time now) {
  RankFamilies ranks;
  MetricFamily work =
      Family("weft_pipeline_work_seconds_total", "Time with a batch in the engine.", MetricType::Counter);
  MetricFamily bubble = Family("weft_pipeline_bubble_ratio",
                               "Share of the stages' time with a batch in the engine in which they were not at work, "
                               "0 to 1, over the last seconds.",
                               MetricType::Gauge);
  MetricFamily stages =
      Family("weft_stage_imbalance_ratio",
             "The slowest stage's time at work over the mean stage's, over the last seconds.", MetricType::Gauge);
  MetricFamily experts = Family("weft_expert_imbalance_ratio",
                                "Tokens of the expert that got most over those of the mean one, over the last seconds.",
                                MetricType::Gauge);
  const std::vector<EngineStats> periods = LastSeconds(replicas, now);
  for (size_t i = 0; i < replicas.size(); ++i) {
    const EngineStats& engine = replicas[i];
    if (engine.ranks.empty()) continue;
    const std::string id = std::to_string(i);
    for (size_t rank = 0; rank < engine.ranks.size(); ++rank) ranks.Add(id, std::to_string(rank), engine.ranks[rank]);
    work.metric.push_back(Counter(absl::ToDoubleSeconds(engine.with_work), {{"replica", id}}));
    bubble.metric.push_back(Gauge(BubbleRatio(periods[i]), {{"replica", id}}));
    stages.metric.push_back(Gauge(StageImbalance(periods[i]), {{"replica", id}}));
    if (engine.ranks.front().expert_tokens.empty()) continue;
    experts.metric.push_back(Gauge(ExpertImbalance(periods[i]), {{"replica", id}}));
  }
  return {std::move(work),           std::move(bubble),         std::move(stages),        std::move(experts),
          std::move(ranks.busy),     std::move(ranks.waiting),  std::move(ranks.idle),    std::move(ranks.op_waits),
          std::move(ranks.op_calls), std::move(ranks.op_bytes), std::move(ranks.experts), std::move(ranks.memory)};
}

}  // namespace weft
