// A scheduler and a fake engine, stepped by hand, and the prompts that its tests give it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "scheduler/scheduler.h"
#include "scheduler/tenant_account.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/manual_clock.h"
#include "tests/fakes/recording_sink.h"

namespace weft {

inline constexpr int32_t kVocab = 1000;

inline EngineLimits Limits(int num_blocks, int block_size, int max_num_seqs, int max_num_batched_tokens) {
  return {int64_t{num_blocks} * block_size, num_blocks, block_size, max_num_seqs, max_num_batched_tokens, kVocab};
}

inline std::vector<int32_t> Prompt(int length, int seed) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < length; ++i)
    tokens.push_back(static_cast<int32_t>((int64_t{seed} * 7919 + int64_t{i} * 104729) % kVocab));
  return tokens;
}

struct AddOptions {
  std::vector<int32_t> stops;
  bool score_prompt = false;
  std::string scope;  // of its prefix; empty: none
  Priority priority = Priority::kNormal;
  TenantAccount* account = nullptr;
};

// The requests that can't start yet stand in line here, by rank.
struct SteppedScheduler {
  explicit SteppedScheduler(const EngineLimits& limits, const SchedulerOptions& options = {})
      : engine(limits, 2 * limits.num_stages), scheduler(limits, options, clock) {}

  std::shared_ptr<RecordingSink> Add(std::vector<int32_t> prompt, int max_tokens, const AddOptions& options = {}) {
    auto sink = std::make_shared<RecordingSink>();
    auto request = std::make_unique<Request>();
    request->id = next_id++;
    request->priority = options.priority;
    request->account = options.account;
    request->arrival = clock.Now();
    request->prompt = std::move(prompt);
    request->sampling.seed = static_cast<uint64_t>(request->id);
    request->sampling.score_prompt = options.score_prompt;
    request->sampling.num_logprobs = options.score_prompt ? 0 : -1;
    request->stop = {max_tokens, options.stops};
    if (!options.scope.empty()) {
      request->prefix_scope = ScopeKey(options.scope, "model", "");
      request->prefix_keys = PrefixKeys(*request->prefix_scope, request->prompt, engine.limits().block_size);
    }
    request->sink = sink;
    Insert(std::move(request));
    return sink;
  }

  void Pull() {
    bool may_preempt = true;
    for (size_t i = 0; i < line.size();) {
      const Verdict verdict = scheduler.Judge(*line[i], may_preempt);
      scheduler.CheckInvariants();
      if (verdict == Verdict::kBlocked) return;
      if (verdict == Verdict::kTooLarge) may_preempt = false;
      if (verdict != Verdict::kTake) {
        ++i;
        continue;
      }
      if (line[i]->account != nullptr) ++line[i]->account->num_running;
      scheduler.Add(std::move(line[i]));
      line.erase(line.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  // One turn of the main loop.
  void Step() {
    Pull();
    while (engine.HasRoom()) {
      const Batch& batch = scheduler.Schedule();
      scheduler.CheckInvariants();
      if (batch.empty()) break;
      engine.Submit(batch);
    }
    if (engine.HasInFlight()) {
      ASSERT_TRUE(scheduler.Commit(*engine.Collect()).ok());
    } else {
      ASSERT_FALSE(scheduler.HasWork()) << "no progress";
    }
    scheduler.CheckInvariants();
    Tell();
  }

  void Tell() {
    for (const Event& event : scheduler.events()) {
      TokenSink& sink = *event.request->sink;
      if (const auto* started = std::get_if<Event::Started>(&event.what)) {
        sink.Start(started->num_cached_tokens);
      } else if (const auto* token = std::get_if<SampledToken>(&event.what)) {
        sink.Push(*token);
      } else {
        if (event.request->account != nullptr) --event.request->account->num_running;
        sink.Finish(std::get<FinishEvent>(event.what));
      }
    }
    scheduler.ClearEvents();
    for (auto& request : scheduler.TakePreempted()) GiveBack(std::move(request));
  }

  void GiveBack(std::unique_ptr<Request> request) {
    if (request->account != nullptr) --request->account->num_running;
    Insert(std::move(request));
  }

  // By rank, as the fair queue would.
  void Insert(std::unique_ptr<Request> request) {
    const auto before = [](const auto& a, const auto& b) {
      if (a->priority != b->priority) return a->priority > b->priority;
      const auto runs = [](const auto& r) { return r->account != nullptr && r->account->num_running > 0; };
      return runs(a) != runs(b) ? runs(b) : a->id < b->id;
    };
    line.insert(std::upper_bound(line.begin(), line.end(), request, before), std::move(request));
  }

  void RunUntilIdle() {
    while (scheduler.HasWork() || engine.HasInFlight() || !line.empty()) ASSERT_NO_FATAL_FAILURE(Step());
  }

  ManualClock clock;
  FakeEngine engine;
  Scheduler scheduler;
  std::deque<std::unique_ptr<Request>> line;
  int64_t next_id = 0;
};

inline int64_t NumPreemptions(const Scheduler& scheduler, PreemptionReason reason = PreemptionReason::kBlocks) {
  return scheduler.stats().num_preemptions[static_cast<size_t>(reason)];
}

inline std::vector<int32_t> Expected(const std::vector<int32_t>& prompt, uint64_t seed, int count) {
  SamplingParams sampling;
  sampling.seed = seed;
  return FakeEngine::ExpectedTokens(prompt, sampling, kVocab, count);
}

// Each token of the prompt but the first, once and in order, before anything is drawn.
inline void ExpectScores(const RecordingSink& sink, const std::vector<int32_t>& prompt) {
  ASSERT_EQ(sink.scores.size() + 1, prompt.size());
  for (size_t i = 0; i < sink.scores.size(); ++i) {
    EXPECT_EQ(sink.scores[i].token, prompt[i + 1]) << i;
    EXPECT_EQ(sink.scores[i].logprob, -static_cast<float>(i + 1)) << i;
  }
}

}  // namespace weft
