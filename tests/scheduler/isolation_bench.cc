// What one client's load does to another's latency, on the CPU backend with a model directory. Prints Markdown tables;
// run by hand. Arrivals are an open loop: they are drawn beforehand, and come whether or not the server keeps up.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "engine/local_engine.h"
#include "scheduler/replica.h"
#include "tests/fakes/stolen_time.h"
#include "tests/scheduler/modelled_serving.h"

namespace weft {
namespace {

constexpr absl::Duration kRunTime = absl::Seconds(20);
constexpr absl::Duration kSliceTime = absl::Seconds(6);
constexpr absl::Duration kWarmUp = absl::Seconds(1);  // not counted: new tenants have no credit yet

// When a request was due, and when its tokens came.
class TimingSink final : public TokenSink {
 public:
  TimingSink(absl::Time due, int output_tokens) : due_(due) { times_.reserve(static_cast<size_t>(output_tokens)); }

  void Start(int64_t) override {}
  void Push(const SampledToken&) override { times_.push_back(absl::Now()); }
  void Finish(const FinishEvent&) override { finished_ = true; }
  bool Cancelled() const override { return false; }

  bool finished() const { return finished_; }

  // For the reader, once the replica has ended.
  absl::Time due() const { return due_; }
  const std::vector<absl::Time>& times() const { return times_; }

 private:
  const absl::Time due_;
  std::vector<absl::Time> times_;
  std::atomic<bool> finished_ = false;
};

using Sinks = std::vector<std::shared_ptr<TimingSink>>;

double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

struct Latencies {
  double ttft_p50 = 0, ttft_p99 = 0, itl_p50 = 0, itl_p99 = 0;  // milliseconds
  size_t count = 0;
};

// Notes when other machines on the same hardware took time from this one, to a hundredth of a second.
class StealWatch {
 public:
  StealWatch() : thread_([this] { Run(); }) {}
  ~StealWatch() {
    stopping_ = true;
    thread_.join();
  }

  // Within begin .. end, or so shortly before that it may have left work behind.
  bool HasStolen(absl::Time begin, absl::Time end) const {
    constexpr absl::Duration kLeft = absl::Milliseconds(20);
    absl::MutexLock lock(&mutex_);
    const auto next = std::lower_bound(seen_.begin(), seen_.end(), begin - kLeft);
    return next != seen_.end() && *next < end + 2 * kLook;
  }

 private:
  static constexpr absl::Duration kLook = absl::Milliseconds(10);

  void Run() {
    absl::Duration stolen = StolenTime();
    while (!stopping_) {
      absl::SleepFor(kLook);
      if (std::exchange(stolen, StolenTime()) == stolen) continue;
      absl::MutexLock lock(&mutex_);
      seen_.push_back(absl::Now());
    }
  }

  mutable absl::Mutex mutex_;
  std::vector<absl::Time> seen_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

struct Samples {
  std::vector<double> ttft, itl;          // milliseconds
  std::vector<double> all_ttft, all_itl;  // those that are left out among them

  // Of those that were due since, but for waits in which the machine was taken away.
  template <typename Sinks>
  void Add(const Sinks& sinks, absl::Time since = absl::InfinitePast(), const StealWatch* watch = nullptr) {
    const auto add = [&](absl::Time begin, absl::Time end, std::vector<double>& to, std::vector<double>& to_all) {
      const double wait = absl::ToDoubleMilliseconds(end - begin);
      to_all.push_back(wait);
      if (watch == nullptr || !watch->HasStolen(begin, end)) to.push_back(wait);
    };
    for (const auto& sink : sinks) {
      const auto& times = sink->times();
      if (times.empty() || sink->due() < since) continue;
      add(sink->due(), times.front(), ttft, all_ttft);
      for (size_t i = 1; i < times.size(); ++i) add(times[i - 1], times[i], itl, all_itl);
    }
  }
  Latencies Quantiles() const {
    return {Quantile(ttft, .5), Quantile(ttft, .99), Quantile(itl, .5), Quantile(itl, .99), ttft.size()};
  }
};

template <typename Sinks>
Latencies LatenciesOf(const Sinks& sinks, absl::Time since = absl::InfinitePast()) {
  Samples samples;
  samples.Add(sinks, since);
  return samples.Quantiles();
}

struct Settings {
  std::string model_dir;
  int max_num_seqs = 8;
  int max_num_batched_tokens = 256;
  int64_t max_model_len = 2048;
  SchedulerOptions scheduler;
  std::vector<int> rows = {4, 8, 16, 64};
  int num_slices = 10;
};

// A replica with its thread, on a queue that leaves room for every tenant.
class Serving {
 public:
  explicit Serving(const Settings& settings)
      : queue_({.max_requests = 8 * settings.max_num_seqs, .leave_room = true}, clock_) {
    const auto config = LoadModelConfig(settings.model_dir);
    EngineSetup options{.model_dir = settings.model_dir,
                        .max_model_len = settings.max_model_len,
                        .max_num_seqs = settings.max_num_seqs,
                        .max_num_batched_tokens = settings.max_num_batched_tokens};
    options.kv_cache_bytes = *KvCacheBytes(*config, options, settings.max_model_len * settings.max_num_seqs);
    replica_ = std::make_unique<Replica>(0, *(*LocalEngines::Load(*config, options, 1))->Open(0), settings.scheduler,
                                         dispatcher_, clock_);
    replica_->Start();
  }
  ~Serving() { Finish(); }

  // Null: refused.
  std::shared_ptr<TimingSink> Push(const std::string& tenant, absl::Time due, int prompt_tokens, int output_tokens) {
    auto places = queue_.Reserve(tenant, Priority::kNormal, 1);
    if (!std::holds_alternative<QueuePlaces>(places)) return nullptr;
    auto request = std::make_unique<Request>();
    request->id = next_id_++;
    request->tenant = tenant;
    request->arrival = due;
    for (int i = 0; i < prompt_tokens; ++i) {
      request->prompt.push_back(static_cast<int32_t>((request->id * 7919 + i * 104729) % 1500));
    }
    request->sampling.seed = static_cast<uint64_t>(request->id);
    request->stop.max_tokens = output_tokens;
    request->prefix_scope = ScopeKey(tenant, "", "");
    request->prefix_keys = PrefixKeys(*request->prefix_scope, request->prompt, replica_->limits().block_size);
    auto sink = std::make_shared<TimingSink>(due, output_tokens);
    request->sink = sink;
    queue_.Push(std::get<QueuePlaces>(places), request);
    return sink;
  }

  void Finish() {
    queue_.Close();
    replica_->Join();
  }

  FairQueue& queue() { return queue_; }
  Stats stats() const { return replica_->stats(); }

 private:
  SystemClock clock_;
  FairQueue queue_;
  Dispatcher dispatcher_{{}, queue_, clock_};
  std::unique_ptr<Replica> replica_;
  int64_t next_id_ = 0;
};

struct Shape {
  const char* name = "";
  int prompt_tokens = 64;
  int output_tokens = 32;
};

struct Load {
  std::string tenant;
  double requests_per_second = 0;
  Shape shape;
};

// Poisson arrivals of all loads for a slice; what the first had is added to the samples.
void RunSlice(const Settings& settings, const std::vector<Load>& loads, uint64_t seed, Samples& samples) {
  const StealWatch watch;
  Serving serving(settings);
  struct Arrival {
    absl::Duration at;
    size_t load;
  };
  std::vector<Arrival> arrivals;
  std::mt19937_64 rng(seed);
  for (size_t i = 0; i < loads.size(); ++i) {
    std::exponential_distribution<double> gap(loads[i].requests_per_second);
    for (double t = gap(rng); t < absl::ToDoubleSeconds(kSliceTime); t += gap(rng))
      arrivals.push_back({absl::Seconds(t), i});
  }
  std::sort(arrivals.begin(), arrivals.end(), [](const Arrival& a, const Arrival& b) { return a.at < b.at; });
  Sinks sinks;  // of the first load
  const absl::Time begin = absl::Now();
  for (const Arrival& arrival : arrivals) {
    const absl::Time due = begin + arrival.at;
    absl::SleepFor(due - absl::Now());
    const Load& load = loads[arrival.load];
    auto sink = serving.Push(load.tenant, due, load.shape.prompt_tokens, load.shape.output_tokens);
    if (sink != nullptr && arrival.load == 0) sinks.push_back(std::move(sink));
  }
  serving.Finish();
  samples.Add(sinks, begin + kWarmUp, &watch);
}

// Requests a second when the queue is never empty.
double Capacity(const Settings& settings, const Shape& shape) {
  Serving serving(settings);
  const absl::Time begin = absl::Now();
  Sinks sinks;
  while (absl::Now() - begin < absl::Seconds(5)) {
    if (auto sink = serving.Push("all", absl::Now(), shape.prompt_tokens, shape.output_tokens)) {
      sinks.push_back(std::move(sink));
    } else {
      absl::SleepFor(absl::Milliseconds(1));
    }
  }
  serving.Finish();
  return static_cast<double>(sinks.size()) / absl::ToDoubleSeconds(absl::Now() - begin);
}

// What sends ten times as much as the replica can do of it.
constexpr Shape kAggressors[] = {
    {.name = "requests like its own"},
    {.name = "prompts of 1000 tokens", .prompt_tokens = 1000, .output_tokens = 8},
    {.name = "answers of 500 tokens", .prompt_tokens = 16, .output_tokens = 500},
};

// A load that the victim meets, none at first, and what it had there.
struct Neighbour {
  std::string name = "alone";
  std::vector<Load> loads;
  Samples samples;
};

// A slice of each in turn, so that an hour's noise is the same for all.
void BenchIsolationWithRows(const Settings& settings) {
  const Load victim{"victim", Capacity(settings, {}) / 10, {}};
  std::vector<Neighbour> neighbours(1);
  neighbours[0].loads = {victim};
  for (const Shape& shape : kAggressors) {
    const Load aggressor{"aggressor", Capacity(settings, shape) * 10, shape};
    neighbours.push_back({.name = absl::StrCat("beside ", shape.name), .loads = {victim, aggressor}, .samples = {}});
  }
  for (int i = 0; i < settings.num_slices; ++i) {
    for (Neighbour& neighbour : neighbours) {
      RunSlice(settings, neighbour.loads, static_cast<uint64_t>(i), neighbour.samples);
    }
  }
  const Latencies solo = neighbours[0].samples.Quantiles();
  for (const auto& [name, loads, samples] : neighbours) {
    const Latencies l = samples.Quantiles();
    const double kept = static_cast<double>(l.count) / static_cast<double>(samples.all_ttft.size());
    std::printf("| %d | %s | %zu | %.0f %% | %.2f ms | %.2f ms | %.2f ms | %.2f ms | %.2f, %.2f | %.2f ms, %.2f ms |\n",
                settings.max_num_seqs, name.c_str(), l.count, 100 * (1 - kept), l.ttft_p50, l.ttft_p99, l.itl_p50,
                l.itl_p99, l.ttft_p99 / solo.ttft_p99, l.itl_p99 / solo.itl_p99, Quantile(samples.all_ttft, .99),
                Quantile(samples.all_itl, .99));
  }
  std::fflush(stdout);
}

void BenchIsolation(Settings settings) {
  std::printf(
      "| rows | victim | requests | left out | TTFT p50 | TTFT p99 | ITL p50 | ITL p99 | p99 times that alone"
      " | p99 with those left out |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
  for (const int rows : settings.rows) {
    settings.max_num_seqs = rows;
    BenchIsolationWithRows(settings);
  }
}

// The same on the modelled machine of the tests: without noise, and the same on every run.
void BenchModelled(const Settings& settings) {
  std::printf("| rows | victim | TTFT p50 | TTFT p99 | ITL p50 | ITL p99 |\n|---:|---|---:|---:|---:|---:|\n");
  for (const int rows : settings.rows) {
    const EngineLimits limits{settings.max_model_len, 128 * rows, 16, rows, settings.max_num_batched_tokens, 1500};
    const auto load = [](const char* tenant, const Shape& shape, double rate) {
      return ModelledLoad{tenant, rate, shape.prompt_tokens, shape.output_tokens};
    };
    const auto run = [&](const std::vector<ModelledLoad>& loads, absl::Duration time) {
      ModelledServing serving(limits, settings.scheduler);
      const absl::Time begin = serving.Now();
      const ModelledServing::Sinks sinks = serving.Run(loads, time).front();
      return std::pair(LatenciesOf(sinks, begin + kWarmUp),
                       static_cast<double>(sinks.size()) / absl::ToDoubleSeconds(serving.Now() - begin));
    };
    const auto capacity = [&](const Shape& shape) { return run({load("all", shape, 5000)}, absl::Seconds(10)).second; };
    const ModelledLoad victim = load("victim", {}, capacity({}) / 10);
    const auto print = [rows](const std::string& what, const Latencies& l, const char* unit) {
      std::printf("| %d | %s | %.2f%s | %.2f%s | %.2f%s | %.2f%s |\n", rows, what.c_str(), l.ttft_p50, unit, l.ttft_p99,
                  unit, l.itl_p50, unit, l.itl_p99, unit);
    };
    const Latencies solo = run({victim}, absl::Seconds(200)).first;
    print(absl::StrCat("alone, ", solo.count, " requests"), solo, " ms");
    for (const Shape& shape : kAggressors) {
      const ModelledLoad aggressor = load("aggressor", shape, 10 * capacity(shape));
      const Latencies beside = run({victim, aggressor}, absl::Seconds(200)).first;
      print(absl::StrCat("beside ", shape.name), beside, " ms");
      print("... times that alone",
            {beside.ttft_p50 / solo.ttft_p50, beside.ttft_p99 / solo.ttft_p99, beside.itl_p50 / solo.itl_p50,
             beside.itl_p99 / solo.itl_p99},
            "");
    }
  }
}

// Streams that decode all the time, and prompts of the greatest length that come in beside them.
void BenchLongPrompts(Settings settings) {
  constexpr int kStreams = 3;
  settings.max_num_seqs = kStreams + 1;
  const int prompt_tokens = static_cast<int>(settings.max_model_len) - 2;
  std::printf("\n| bound | prompts of %d tokens | ITL p50 | ITL p99 | prompt's TTFT p50 |\n|---:|---|---:|---:|---:|\n",
              prompt_tokens);
  for (const double bound : {0.0, 20.0, 10.0, 5.0}) {
    for (const bool with_prompts : {false, true}) {
      if (bound == 0 && !with_prompts) continue;
      settings.scheduler.max_itl = bound == 0 ? absl::InfiniteDuration() : absl::Milliseconds(bound);
      Serving serving(settings);
      const absl::Time end = absl::Now() + kRunTime / 2;
      Sinks streams, prompts;
      const auto ended = [](const std::shared_ptr<TimingSink>& sink) { return sink->finished(); };
      while (absl::Now() < end) {
        const auto open =
            static_cast<int>(streams.size()) - static_cast<int>(std::count_if(streams.begin(), streams.end(), ended));
        if (open < kStreams) streams.push_back(serving.Push("streams", absl::Now(), 16, 1000));
        if (with_prompts && (prompts.empty() || prompts.back()->finished())) {
          prompts.push_back(serving.Push("prompts", absl::Now(), prompt_tokens, 1));
        }
        absl::SleepFor(absl::Milliseconds(1));
      }
      serving.Finish();
      const Latencies stream = LatenciesOf(streams), prompt = LatenciesOf(prompts);
      std::printf("| %s | %zu | %.2f ms | %.2f ms | %.0f ms |\n",
                  bound == 0 ? "none" : absl::FormatDuration(absl::Milliseconds(bound)).c_str(), prompts.size(),
                  stream.itl_p50, stream.itl_p99, prompt.ttft_p50);
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  const std::string what = argc > 2 ? argv[2] : "";
  if (what != "isolation" && what != "modelled" && what != "long-prompts") {
    std::fprintf(stderr,
                 "usage: weft_isolation_bench MODEL_DIR isolation|modelled|long-prompts"
                 " [MAX_ITL_MS [ROWS [MAX_PREFILL_SHARE [SLICES]]]]\n");
    return 2;
  }
  weft::Settings settings{.model_dir = argv[1]};
  if (argc > 3) settings.scheduler.max_itl = absl::Milliseconds(std::atof(argv[3]));
  if (argc > 4) settings.rows = {std::atoi(argv[4])};
  if (argc > 5) settings.scheduler.max_prefill_share = std::atof(argv[5]);
  if (argc > 6) settings.num_slices = std::max(1, std::atoi(argv[6]));
  if (what == "isolation") weft::BenchIsolation(settings);
  if (what == "modelled") weft::BenchModelled(settings);
  if (what == "long-prompts") weft::BenchLongPrompts(settings);
}
