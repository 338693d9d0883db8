// A replica in virtual time on a machine whose steps cost what a model says: what clients do to each other there
// follows from the scheduler alone, and comes out the same on every run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "scheduler/replica.h"
#include "tests/fakes/manual_clock.h"

namespace weft {

// What a step takes: the demo model's on one core of a CPU, roughly.
struct StepCost {
  absl::Duration step = absl::Microseconds(170);
  absl::Duration token = absl::Microseconds(45);
  absl::Duration context = absl::Nanoseconds(80);  // of a token, for each one before it

  absl::Duration Of(const Batch& batch) const {
    int64_t num_before = 0;
    for (const int32_t position : batch.positions) num_before += position;
    return step + token * batch.num_tokens() + context * num_before;
  }
};

// Executes one step after the other, each at its cost; every token is the same.
class ModelledEngine final : public Engine {
 public:
  ModelledEngine(const EngineLimits& limits, const StepCost& cost, const Clock& clock)
      : limits_(limits), cost_(cost), clock_(clock) {}

  const EngineLimits& limits() const override { return limits_; }
  bool HasRoom() const override { return in_flight_.size() < 2; }
  bool HasInFlight() const override { return !in_flight_.empty(); }
  absl::Time done() const { return in_flight_.front().done; }  // the oldest step

  void Submit(const Batch& batch) override {
    const absl::Duration took = cost_.Of(batch);
    busy_until_ = std::max(busy_until_, clock_.Now()) + took;
    StepResult result{.step = batch.step, .compute_time = took};
    result.tokens.resize(batch.sampling.size());
    in_flight_.push_back({busy_until_, std::move(result)});
  }

  absl::Status status() const override { return absl::OkStatus(); }
  EngineStats stats() const override { return {}; }
  absl::StatusOr<StepResult> Collect() override {
    StepResult result = std::move(in_flight_.front().result);
    in_flight_.pop_front();
    return result;
  }

 private:
  struct Step {
    absl::Time done;
    StepResult result;
  };
  const EngineLimits limits_;
  const StepCost cost_;
  const Clock& clock_;
  absl::Time busy_until_ = absl::InfinitePast();
  std::deque<Step> in_flight_;
};

class TimedSink final : public TokenSink {
 public:
  TimedSink(const Clock& clock, absl::Time due) : clock_(clock), due_(due) {}
  void Start(int64_t) override {}
  void Push(const SampledToken&) override { times_.push_back(clock_.Now()); }
  void Finish(const FinishEvent&) override {}
  bool Cancelled() const override { return false; }
  absl::Time due() const { return due_; }
  const std::vector<absl::Time>& times() const { return times_; }

 private:
  const Clock& clock_;
  const absl::Time due_;
  std::vector<absl::Time> times_;
};

struct ModelledLoad {
  std::string tenant;
  double requests_per_second = 0;
  int prompt_tokens = 64;
  int output_tokens = 32;
};

class ModelledServing {
 public:
  using Sinks = std::vector<std::shared_ptr<TimedSink>>;

  ModelledServing(const EngineLimits& limits, const SchedulerOptions& options, const StepCost& cost = {},
                  const FairQueueOptions& queue = {})
      : limits_(limits), queue_(OnlyFew(queue, limits), clock_) {
    auto engine = std::make_unique<ModelledEngine>(limits, cost, clock_);
    engine_ = engine.get();
    replica_ = std::make_unique<Replica>(0, std::move(engine), options, dispatcher_, clock_);
  }

  // Poisson arrivals of all loads for so long, whether or not the replica keeps up; the sinks of each.
  std::vector<Sinks> Run(const std::vector<ModelledLoad>& loads, absl::Duration time) {
    struct Arrival {
      absl::Time at;
      size_t load;
    };
    std::vector<Arrival> arrivals;
    std::mt19937_64 rng(7);
    for (size_t i = 0; i < loads.size(); ++i) {
      std::exponential_distribution<double> gap(loads[i].requests_per_second);
      for (double t = gap(rng); t < absl::ToDoubleSeconds(time); t += gap(rng)) {
        arrivals.push_back({clock_.Now() + absl::Seconds(t), i});
      }
    }
    std::sort(arrivals.begin(), arrivals.end(), [](const auto& a, const auto& b) { return a.at < b.at; });
    std::vector<Sinks> sinks(loads.size());
    size_t next = 0;
    const auto arrive_until = [&](absl::Time until) {
      for (; next < arrivals.size() && arrivals[next].at <= until; ++next) {
        clock_.Advance(std::max(arrivals[next].at - clock_.Now(), absl::ZeroDuration()));
        auto sink = Push(loads[arrivals[next].load]);
        if (sink != nullptr) sinks[arrivals[next].load].push_back(std::move(sink));
      }
      clock_.Advance(std::max(until - clock_.Now(), absl::ZeroDuration()));
    };
    while (true) {
      replica_->PullWork();
      if (!replica_->HasWork()) {
        if (next == arrivals.size()) break;
        arrive_until(arrivals[next].at);
        continue;
      }
      replica_->SubmitSteps();
      if (replica_->HasInFlight()) {
        arrive_until(engine_->done());
        replica_->FinishStep();
      }
      replica_->Publish();
    }
    return sinks;
  }
  Stats stats() const { return replica_->stats(); }
  absl::Time Now() const { return clock_.Now(); }

 private:
  static FairQueueOptions OnlyFew(FairQueueOptions options, const EngineLimits& limits) {
    options.max_requests = 8 * limits.max_num_seqs;
    options.leave_room = true;
    return options;
  }

  // Null: refused.
  std::shared_ptr<TimedSink> Push(const ModelledLoad& load) {
    auto places = queue_.Reserve(load.tenant, Priority::kNormal, 1);
    if (!std::holds_alternative<QueuePlaces>(places)) return nullptr;
    auto request = std::make_unique<Request>();
    request->id = next_id_++;
    request->tenant = load.tenant;
    request->arrival = clock_.Now();
    for (int i = 0; i < load.prompt_tokens; ++i) {
      request->prompt.push_back(static_cast<int32_t>((request->id * 7919 + i * 104729) % limits_.vocab_size));
    }
    request->stop.max_tokens = load.output_tokens;
    request->prefix_scope = ScopeKey(load.tenant, "", "");
    request->prefix_keys = PrefixKeys(*request->prefix_scope, request->prompt, limits_.block_size);
    auto sink = std::make_shared<TimedSink>(clock_, clock_.Now());
    request->sink = sink;
    queue_.Push(std::get<QueuePlaces>(places), request);
    return sink;
  }

  const EngineLimits limits_;
  ManualClock clock_;
  FairQueue queue_;
  Dispatcher dispatcher_{{}, queue_, clock_};
  ModelledEngine* engine_ = nullptr;  // the replica's
  std::unique_ptr<Replica> replica_;
  int64_t next_id_ = 0;
};

}  // namespace weft
