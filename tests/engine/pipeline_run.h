// A pipeline of two stages that cost the same, one thread each, kept as full as it is allowed to be; and how much of
// the stages' time was lost, by the engine's stats and by a trace.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "engine/engine_stats.h"
#include "engine/local_engine.h"
#include "engine/step_trace.h"
#include "tests/fakes/hand_driven_replica.h"
#include "tests/fakes/stolen_time.h"
#include "tests/fakes/temp_dir.h"

namespace weft {

struct PipelineRunOptions {
  int hidden_size = 256;
  int num_layers = 8;
  int num_sequences = 32;
  int num_steps = 200;    // measured
  int max_in_flight = 4;  // batches, of half of the sequences each
};

struct PipelineRun {
  EngineStats stats;           // of the steps that were measured
  double bubble_by_trace = 0;  // of the same
  double uneven = 0;           // what of it follows from steps that don't all take the same time
  double without_core = 0;     // of two cores' time, that threads waited for one
};

// An engine that takes fewer batches at a time than it could. Keeps a trace of when it had any.
class CappedEngine final : public Engine {
 public:
  CappedEngine(std::unique_ptr<Engine> engine, int max_in_flight)
      : engine_(std::move(engine)), max_in_flight_(max_in_flight) {}

  const EngineLimits& limits() const override { return engine_->limits(); }
  bool HasRoom() const override { return engine_->HasRoom() && num_in_flight_ < max_in_flight_; }
  bool HasInFlight() const override { return num_in_flight_ > 0; }
  void Submit(const Batch& batch) override {
    if (num_in_flight_++ == 0) with_work_.push_back({.begin = absl::Now(), .end = absl::InfiniteFuture()});
    engine_->Submit(batch);
  }
  absl::StatusOr<StepResult> Collect() override {
    absl::StatusOr<StepResult> result = engine_->Collect();
    if (--num_in_flight_ == 0) with_work_.back().end = absl::Now();
    return result;
  }
  absl::Status status() const override { return engine_->status(); }
  EngineStats stats() const override { return engine_->stats(); }

  const std::vector<StepSpan>& with_work() const { return with_work_; }

 private:
  const std::unique_ptr<Engine> engine_;
  const int max_in_flight_;
  int num_in_flight_ = 0;
  std::vector<StepSpan> with_work_;
};

inline std::string PipelineModel(const PipelineRunOptions& options) {  // the head costs next to nothing
  return absl::StrCat(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64,
      "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 4096, "dtype": "float32",
      "tie_word_embeddings": false, "rms_norm_eps": 1e-6, "hidden_size": )",
                      options.hidden_size, R"(, "intermediate_size": )", 3 * options.hidden_size,
                      R"(, "num_hidden_layers": )", options.num_layers, "}");
}

// How much of begin .. end the spans cover.
inline absl::Duration Covered(const std::vector<StepSpan>& spans, absl::Time begin, absl::Time end) {
  absl::Duration sum;
  for (const StepSpan& span : spans) {
    sum += std::max(absl::ZeroDuration(), std::min(span.end, end) - std::max(span.begin, begin));
  }
  return sum;
}

// The share of time that two lose who always begin together, and wait for the one that takes longer.
inline double LostByWaiting(absl::Span<const absl::Duration> first, absl::Span<const absl::Duration> second) {
  absl::Duration work, longest;
  for (size_t i = 0; i < std::min(first.size(), second.size()); ++i) {
    work += first[i] + second[i];
    longest += std::max(first[i], second[i]);
  }
  return 1 - absl::FDivDuration(work, 2 * longest);
}

// What two stages lose because their steps don't all take the same time: each waits for the other's step before its
// own.
inline double LostToUnevenSteps(const std::vector<StepSpan>& spans, absl::Time begin, absl::Time end) {
  std::vector<absl::Duration> stages[2];
  for (const StepSpan& span : spans) {
    if (span.begin >= begin && span.end <= end) stages[span.rank].push_back(span.end - span.begin);
  }
  return LostByWaiting(absl::MakeSpan(stages[0]).subspan(std::min<size_t>(1, stages[0].size())), stages[1]);
}

// What this machine makes of it when there is no pipeline: two threads that share nothing, and do the same arithmetic
// in registers again and again, for about as long as a step takes.
inline double LostToTheMachine(absl::Duration step, int num_steps) {
  const auto work = [](int64_t rounds) {
    double values[16] = {};
    for (int64_t i = 0; i < rounds; ++i) {
      for (double& value : values) value = value * 0.999 + 1;
    }
    return values[rounds % 16];
  };
  std::vector<absl::Duration> times[2];
  volatile double kept = 0;
  const auto timed = [&](int64_t rounds) {
    const absl::Time begin = absl::Now();
    kept = work(rounds);
    return absl::Now() - begin;
  };
  constexpr int64_t kTrial = 1'000'000;
  const auto rounds = static_cast<int64_t>(kTrial * absl::FDivDuration(step, timed(kTrial)));
  const auto run = [&](int thread) {
    for (int i = 0; i < num_steps; ++i) times[thread].push_back(timed(rounds));
  };
  std::thread other(run, 1);
  run(0);
  other.join();
  return LostByWaiting(times[0], times[1]);
}

// Time for which threads of this process were ready to run and had no core: another thread had it, of this process or
// of others, or (what the kernel calls stolen) another machine.
inline absl::Duration WithoutCore() {
  int64_t nanoseconds = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "schedstat");
    int64_t ran = 0, waited = 0;
    if (file >> ran >> waited) nanoseconds += waited;
  }
  return absl::Nanoseconds(nanoseconds) + StolenTime();
}

inline PipelineRun RunPipeline(const PipelineRunOptions& options) {
  const TempDir dir;
  dir.Write("config.json", PipelineModel(options));
  const ModelConfig config = *LoadModelConfig(dir.path());
  constexpr int kPromptTokens = 4;
  const int max_tokens = options.num_steps;  // a sequence is in every other step
  EngineSetup setup{.model_dir = dir.path(),
                    .weights = {.format = LoadFormat::kDummy},
                    .device = {.num_threads = 2},
                    .parallel = {.pipeline = 2},
                    .max_model_len = kPromptTokens + max_tokens,
                    .max_num_seqs = options.num_sequences};
  setup.kv_cache_bytes = *KvCacheBytes(config, setup, options.num_sequences * (setup.max_model_len + setup.block_size));
  StepTrace trace;
  const std::unique_ptr<LocalEngines> engines = *LocalEngines::Load(config, setup, 1);
  engines->TraceSteps(&trace);
  auto owned = std::make_unique<CappedEngine>(*engines->Open(0), options.max_in_flight);
  const CappedEngine& engine = *owned;
  HandDrivenReplica replica(std::move(owned));
  for (int i = 0; i < options.num_sequences; ++i) {
    auto request = std::make_unique<Request>();
    request->tenant = "nobody";
    for (int t = 0; t < kPromptTokens; ++t) request->prompt.push_back((7 * i + t) % 64);
    request->stop.max_tokens = max_tokens;
    replica.Push(std::move(request));
  }
  const int warm_up = options.num_steps / 4;
  while (replica.stats().num_steps < warm_up) replica.Step();
  const absl::Duration without_core = WithoutCore();
  const absl::Time begin = absl::Now();
  const EngineStats before = engine.stats();
  while (replica.stats().num_steps < warm_up + options.num_steps) replica.StepUnchecked();
  const absl::Time end = absl::Now();
  PipelineRun run{.stats = Since(before, engine.stats()),
                  .without_core = absl::FDivDuration(WithoutCore() - without_core, 2 * (end - begin))};
  replica.RunUntilIdle();
  const absl::Duration whole = 2 * Covered(engine.with_work(), begin, end);
  const std::vector<StepSpan> spans = trace.Take();
  run.bubble_by_trace = 1 - absl::FDivDuration(Covered(spans, begin, end), whole);
  run.uneven = LostToUnevenSteps(spans, begin, end);
  return run;
}

}  // namespace weft
