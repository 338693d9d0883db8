#include "server/scheduler_metrics.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/string_view.h"
#include "server/metric_series.h"
#include "server/priority_name.h"

namespace weft {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Replicas = std::vector<SchedulerSnapshot::Replica>;

constexpr std::array<absl::string_view, kNumPreemptionReasons> kReasonNames = {"blocks", "priority", "fairness"};
constexpr char kOtherTenants[] = "other";

template <size_t kNumBounds>
ClientMetric Histogram(const FixedHistogram<kNumBounds>& histogram, Labels labels = {}) {
  ClientMetric metric;
  metric.label = std::move(labels);
  uint64_t count = 0;
  for (size_t i = 0; i <= kNumBounds; ++i) {
    count += static_cast<uint64_t>(histogram.counts[i]);
    const double bound = i < kNumBounds ? histogram.bounds[i] : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back({count, bound});
  }
  metric.histogram.sample_count = count;
  metric.histogram.sample_sum = histogram.sum;
  return metric;
}

template <size_t kNumBounds>
void AddTo(FixedHistogram<kNumBounds>& sum, const FixedHistogram<kNumBounds>& histogram) {
  for (size_t i = 0; i <= kNumBounds; ++i) sum.counts[i] += histogram.counts[i];
  sum.sum += histogram.sum;
}

// Of what was counted, all; of what is there now, that of the living.
Stats Sum(const Replicas& replicas) {
  Stats sum;
  for (const SchedulerSnapshot::Replica& replica : replicas) {
    const Stats& stats = replica.stats;
    if (replica.is_up) {
      sum.num_running += stats.num_running;
      sum.num_blocks += stats.num_blocks;
      sum.num_free_blocks += stats.num_free_blocks;
      sum.num_cached_blocks += stats.num_cached_blocks;
    }
    sum.num_evictions += stats.num_evictions;
    sum.num_prompt_tokens += stats.num_prompt_tokens;
    sum.num_cached_tokens += stats.num_cached_tokens;
    for (size_t i = 0; i < sum.num_preemptions.size(); ++i) sum.num_preemptions[i] += stats.num_preemptions[i];
    sum.num_steps += stats.num_steps;
    sum.num_tokens_computed += stats.num_tokens_computed;
    AddTo(sum.step_seconds, stats.step_seconds);
    AddTo(sum.batch_rows, stats.batch_rows);
    AddTo(sum.batch_tokens, stats.batch_tokens);
    AddTo(sum.queue_seconds, stats.queue_seconds);
  }
  return sum;
}

int64_t NumWaiting(const QueueStats::Tenant& tenant) {
  int64_t sum = 0;
  for (const int64_t waiting : tenant.num_waiting) sum += waiting;
  return sum;
}

// One family with a series for each replica.
template <typename Value>
MetricFamily ByReplica(const char* name, const char* help, MetricType type, const Replicas& replicas, Value value) {
  MetricFamily family{name, help, type, {}};
  for (size_t i = 0; i < replicas.size(); ++i) {
    family.metric.push_back(value(replicas[i], Labels{{"replica", std::to_string(i)}}));
  }
  return family;
}

MetricFamily Blocks(const Replicas& replicas) {
  MetricFamily family{"weft_kv_blocks", "KV blocks of the living replicas, by state.", MetricType::Gauge, {}};
  for (size_t i = 0; i < replicas.size(); ++i) {
    const Stats& stats = replicas[i].stats;
    if (!replicas[i].is_up) continue;
    const auto add = [&](const char* state, int64_t count) {
      family.metric.push_back(Gauge(count, {{"state", state}, {"replica", std::to_string(i)}}));
    };
    add("free", stats.num_free_blocks - stats.num_cached_blocks);
    add("cached", stats.num_cached_blocks);
    add("held", stats.num_blocks - stats.num_free_blocks);
  }
  return family;
}

MetricFamily Preemptions(const Stats& sum) {
  MetricFamily family{"weft_preemptions_total",
                      "Sequences that gave up their row and KV blocks, by who needed them.",
                      MetricType::Counter,
                      {}};
  for (size_t i = 0; i < kReasonNames.size(); ++i) {
    family.metric.push_back(Counter(sum.num_preemptions[i], {{"reason", std::string(kReasonNames[i])}}));
  }
  return family;
}

// By name, the busiest tenants that have one for the world; the others under one.
std::map<std::string, QueueStats::Tenant> NamedTenants(const QueueStats& queue) {
  std::vector<const QueueStats::Tenant*> busiest;
  for (const QueueStats::Tenant& tenant : queue.tenants) busiest.push_back(&tenant);
  std::sort(busiest.begin(), busiest.end(), [](const auto* a, const auto* b) {
    const int64_t of_a = NumWaiting(*a) + a->num_running;
    const int64_t of_b = NumWaiting(*b) + b->num_running;
    return std::tuple(b->has_policy, of_b, a->name) < std::tuple(a->has_policy, of_a, b->name);
  });
  std::map<std::string, QueueStats::Tenant> named;
  for (size_t i = 0; i < busiest.size(); ++i) {
    const bool is_named = busiest[i]->has_policy && i < kMaxNamedTenants;
    QueueStats::Tenant& sum = named[is_named ? busiest[i]->name : kOtherTenants];
    for (size_t c = 0; c < sum.num_waiting.size(); ++c) sum.num_waiting[c] += busiest[i]->num_waiting[c];
    sum.num_running += busiest[i]->num_running;
  }
  return named;
}

void AppendTenants(const QueueStats& queue, std::vector<MetricFamily>& families) {
  MetricFamily waiting{"weft_queue_requests", "Sequences in the queue, by tenant and class.", MetricType::Gauge, {}};
  MetricFamily running{"weft_tenant_running_requests", "Sequences that hold a slot, by tenant.", MetricType::Gauge, {}};
  for (const auto& [name, tenant] : NamedTenants(queue)) {
    for (size_t c = 0; c < tenant.num_waiting.size(); ++c) {
      waiting.metric.push_back(
          Gauge(tenant.num_waiting[c], {{"tenant", name}, {"priority", std::string(kPriorityNames[c])}}));
    }
    running.metric.push_back(Gauge(tenant.num_running, {{"tenant", name}}));
  }
  families.push_back(std::move(waiting));
  families.push_back(std::move(running));
}

}  // namespace

std::vector<MetricFamily> SchedulerFamilies(const SchedulerSnapshot& snapshot) {
  const Stats sum = Sum(snapshot.replicas);
  int64_t num_waiting = 0;
  for (const QueueStats::Tenant& tenant : snapshot.queue.tenants) num_waiting += NumWaiting(tenant);
  const auto one = [](const char* name, const char* help, MetricType type, ClientMetric metric) {
    return MetricFamily{name, help, type, {std::move(metric)}};
  };
  const auto by_replica = [&snapshot](const char* name, const char* help, MetricType type, auto value) {
    return ByReplica(name, help, type, snapshot.replicas, value);
  };
  constexpr auto kGauge = MetricType::Gauge;
  constexpr auto kCounter = MetricType::Counter;
  constexpr auto kHistogram = MetricType::Histogram;
  using Replica = SchedulerSnapshot::Replica;
  std::vector<MetricFamily> families = {
      one("weft_num_requests_waiting", "Sequences that wait for their first or next step.", kGauge, Gauge(num_waiting)),
      one("weft_num_requests_running", "Sequences that hold a slot.", kGauge, Gauge(sum.num_running)),
      one("weft_kv_cache_usage_ratio", "Share of KV blocks in use, 0 to 1.", kGauge, Gauge(sum.KvCacheUsage())),
      one("weft_kv_cache_blocks", "KV blocks, free or in use.", kGauge, Gauge(sum.num_blocks)),
      one("weft_kv_cache_cached_blocks", "KV blocks in no use whose content may be taken up.", kGauge,
          Gauge(sum.num_cached_blocks)),
      Blocks(snapshot.replicas),
      one("weft_kv_cache_evictions_total", "Cached KV blocks that were given other content.", kCounter,
          Counter(sum.num_evictions)),
      one("weft_prefix_cache_queries_total", "Prompt tokens of sequences that began to run.", kCounter,
          Counter(sum.num_prompt_tokens)),
      one("weft_prefix_cache_hits_total", "Of these, tokens that were not computed but taken up.", kCounter,
          Counter(sum.num_cached_tokens)),
      Preemptions(sum),
      one("weft_steps_total", "Steps of the engines.", kCounter, Counter(sum.num_steps)),
      one("weft_computed_tokens_total", "Tokens computed, recomputation after preemption included.", kCounter,
          Counter(sum.num_tokens_computed)),
      one("weft_step_time_seconds", "An engine's time on one step.", kHistogram, Histogram(sum.step_seconds)),
      one("weft_batch_size", "Sequences in one step.", kHistogram, Histogram(sum.batch_rows)),
      one("weft_batch_tokens", "Tokens in one step.", kHistogram, Histogram(sum.batch_tokens)),
      one("weft_queue_time_seconds", "From arrival to the first step that computes the sequence.", kHistogram,
          Histogram(sum.queue_seconds)),
      one("weft_fairness_gap_tokens",
          "Between the most and the least served of the tenants that wait and may run: tokens of service over weight.",
          kGauge, Gauge(snapshot.queue.fairness_gap)),
      by_replica("weft_replica_up", "1 while the replica lives.", kGauge,
                 [](const Replica& r, Labels l) { return Gauge(int64_t{r.is_up}, std::move(l)); }),
      by_replica("weft_replica_restarts_total", "Times that the replica's engine was started again.", kCounter,
                 [](const Replica& r, Labels l) { return Counter(r.num_restarts, std::move(l)); }),
      by_replica("weft_replica_crash_looping", "1 once the replica has died too often to be started again.", kGauge,
                 [](const Replica& r, Labels l) { return Gauge(int64_t{r.is_down_for_good}, std::move(l)); }),
      by_replica("weft_replica_running_requests", "Sequences that hold a slot of the replica.", kGauge,
                 [](const Replica& r, Labels l) { return Gauge(r.is_up ? r.stats.num_running : 0, std::move(l)); }),
      by_replica("weft_max_running_sequences", "Sequences that a replica runs at once at most.", kGauge,
                 [](const Replica& r, Labels l) { return Gauge(r.stats.max_running, std::move(l)); }),
      by_replica("weft_max_prefill_tokens", "Prompt tokens that a step may compute while others decode.", kGauge,
                 [](const Replica& r, Labels l) { return Gauge(r.stats.max_prefill_tokens, std::move(l)); }),
      by_replica("weft_scheduler_step_seconds", "The scheduler's own time on one step.", kHistogram,
                 [](const Replica& r, Labels l) { return Histogram(r.stats.scheduler_seconds, std::move(l)); }),
  };
  AppendTenants(snapshot.queue, families);
  return families;
}

}  // namespace weft
