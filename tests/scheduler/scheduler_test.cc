#include "scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "scheduler/tenant_account.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/manual_clock.h"
#include "tests/fakes/recording_sink.h"

namespace weft {
namespace {

constexpr int32_t kVocab = 1000;

EngineLimits Limits(int num_blocks, int block_size, int max_num_seqs, int max_num_batched_tokens) {
  return {int64_t{num_blocks} * block_size, num_blocks, block_size, max_num_seqs, max_num_batched_tokens, kVocab};
}

std::vector<int32_t> Prompt(int length, int seed) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < length; ++i) tokens.push_back((seed * 7919 + i * 104729) % kVocab);
  return tokens;
}

struct AddOptions {
  std::vector<int32_t> stops;
  bool score_prompt = false;
  std::string scope;  // of its prefix; empty: none
  Priority priority = Priority::kNormal;
  TenantAccount* account = nullptr;
};

// A scheduler and a fake engine, stepped by hand. What can't start yet waits in line here, first come, first served.
struct Bench {
  explicit Bench(const EngineLimits& limits, const SchedulerOptions& options = {})
      : engine(limits), scheduler(limits, options, clock) {}

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
    for (size_t i = 0; i < line.size();) {
      const Verdict verdict = scheduler.Judge(*line[i]);
      scheduler.CheckInvariants();
      if (verdict == Verdict::kBlocked) return;
      if (verdict == Verdict::kPass) {
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

int64_t NumPreemptions(const Scheduler& scheduler, PreemptionReason reason = PreemptionReason::kBlocks) {
  return scheduler.stats().num_preemptions[static_cast<size_t>(reason)];
}

std::vector<int32_t> Expected(const std::vector<int32_t>& prompt, uint64_t seed, int count) {
  SamplingParams sampling;
  sampling.seed = seed;
  return FakeEngine::ExpectedTokens(prompt, sampling, kVocab, count);
}

TEST(SchedulerTest, DrawsUntilMaxTokens) {
  Bench bench(Limits(8, 4, 2, 16));
  const auto sink = bench.Add(Prompt(5, 1), 9);
  bench.RunUntilIdle();
  EXPECT_EQ(sink->tokens, Expected(Prompt(5, 1), 0, 9));
  EXPECT_EQ(sink->finish->reason, FinishReason::kLength);
}

TEST(SchedulerTest, EndsAtAStopTokenAndNamesIt) {
  const std::vector<int32_t> expected = Expected(Prompt(5, 1), 0, 9);
  Bench bench(Limits(8, 4, 2, 16));
  const auto sink = bench.Add(Prompt(5, 1), 9, {.stops = {expected[4]}});
  bench.RunUntilIdle();
  EXPECT_EQ(sink->tokens, std::vector<int32_t>(expected.begin(), expected.begin() + 4));
  EXPECT_EQ(sink->finish->reason, FinishReason::kStop);
  EXPECT_EQ(sink->finish->stop_token, expected[4]);
  EXPECT_EQ(bench.scheduler.stats().num_free_blocks, 8);
}

TEST(SchedulerTest, CutsPromptsToTheTokenBudget) {
  for (const int budget : {1, 3, 7, 64}) {
    Bench bench(Limits(16, 4, 2, budget));
    const auto sink = bench.Add(Prompt(33, 2), 4);
    bench.RunUntilIdle();
    EXPECT_EQ(sink->tokens, Expected(Prompt(33, 2), 0, 4)) << budget;
  }
}

TEST(SchedulerTest, NextTokensDoNotWaitForALongPrompt) {
  Bench bench(Limits(64, 4, 4, 8));
  const auto sink = bench.Add(Prompt(4, 1), 40);
  bench.Step();
  const auto long_prompt = bench.Add(Prompt(100, 2), 1);
  for (int i = 0; i < 10; ++i) {
    const size_t before = sink->tokens.size();
    bench.Step();
    EXPECT_EQ(sink->tokens.size(), before + 1);
  }
  EXPECT_FALSE(long_prompt->finish.has_value());
  bench.RunUntilIdle();
}

TEST(SchedulerTest, PreemptsNewestWhenBlocksRunOutAndKeepsItsTokens) {
  Bench bench(Limits(8, 4, 3, 64));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 3; ++i) sinks.push_back(bench.Add(Prompt(6, i), 20));
  bench.RunUntilIdle();
  EXPECT_GT(NumPreemptions(bench.scheduler), 0);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(sinks[static_cast<size_t>(i)]->tokens, Expected(Prompt(6, i), static_cast<uint64_t>(i), 20)) << i;
  }
}

TEST(SchedulerTest, NeverPreemptsTheOldest) {
  Bench bench(Limits(8, 4, 3, 64));
  const auto oldest = bench.Add(Prompt(6, 0), 20);
  for (int i = 1; i < 3; ++i) bench.Add(Prompt(6, i), 20);
  // The first token is drawn by the first step; from then on the oldest gets one a step.
  for (size_t i = 1; i <= 20; ++i) {
    bench.Step();
    EXPECT_EQ(oldest->tokens.size(), i);
  }
  bench.RunUntilIdle();
}

TEST(SchedulerTest, CancelFreesBlocksWithinTwoSteps) {
  Bench bench(Limits(8, 4, 3, 64));
  const auto sink = bench.Add(Prompt(6, 0), 20);
  bench.Step();
  bench.Step();
  sink->cancelled = true;
  bench.Step();
  bench.Step();
  EXPECT_EQ(bench.scheduler.stats().num_free_blocks, 8);
  EXPECT_EQ(sink->finish->reason, FinishReason::kCancelled);
}

TEST(SchedulerTest, WhatADeadEngineRanGoesOnElsewhereAsIfNothingHadHappened) {
  Bench first(Limits(8, 4, 2, 64));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 2; ++i) sinks.push_back(first.Add(Prompt(6, i), 10));
  for (int i = 0; i < 4; ++i) first.Step();
  std::vector<Scheduler::Survivor> survivors = first.scheduler.Abort();
  first.Tell();
  EXPECT_FALSE(first.scheduler.HasWork());
  EXPECT_EQ(first.scheduler.stats().num_free_blocks, 8);
  first.scheduler.CheckInvariants();
  ASSERT_EQ(survivors.size(), 2u);
  Bench second(Limits(8, 4, 2, 64));
  for (auto& survivor : survivors) {
    EXPECT_TRUE(survivor.was_in_step);
    EXPECT_EQ(survivor.request->progress.output.size(),
              sinks[static_cast<size_t>(survivor.request->id)]->tokens.size());
    second.GiveBack(std::move(survivor.request));
  }
  second.RunUntilIdle();
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(sinks[i]->tokens, Expected(Prompt(6, static_cast<int>(i)), i, 10));
}

TEST(SchedulerTest, AnAnswerThatCameBeforeIsIgnoredAndNonsenseChangesNothing) {
  Bench bench(Limits(16, 4, 2, 64));
  const auto sink = bench.Add(Prompt(6, 1), 9);
  bench.Pull();
  const Batch batch = bench.scheduler.Schedule();
  bench.engine.Submit(batch);
  const StepResult right = *bench.engine.Collect();
  StepResult wrong = right;
  wrong.tokens.push_back(wrong.tokens.front());
  EXPECT_EQ(bench.scheduler.Commit(wrong).status().code(), absl::StatusCode::kInternal);
  wrong = right;
  wrong.step = 7;
  EXPECT_EQ(bench.scheduler.Commit(wrong).status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(bench.scheduler.Commit(right).ok());
  EXPECT_TRUE(bench.scheduler.Commit(right).ok());
  bench.RunUntilIdle();
  EXPECT_EQ(sink->tokens, Expected(Prompt(6, 1), 0, 9));
}

// Each token of the prompt but the first, once and in order, before anything is drawn.
void ExpectScores(const RecordingSink& sink, const std::vector<int32_t>& prompt) {
  ASSERT_EQ(sink.scores.size() + 1, prompt.size());
  for (size_t i = 0; i < sink.scores.size(); ++i) {
    EXPECT_EQ(sink.scores[i].token, prompt[i + 1]) << i;
    EXPECT_EQ(sink.scores[i].logprob, -static_cast<float>(i + 1)) << i;
  }
}

TEST(SchedulerTest, ScoresAPromptWithinTheBoundOfAStep) {
  for (const int max_scores : {1, 3, 64}) {
    EngineLimits limits = Limits(32, 4, 2, 16);
    limits.max_num_scores = max_scores;
    Bench bench(limits);
    const auto other = bench.Add(Prompt(9, 1), 12);
    const auto sink = bench.Add(Prompt(33, 2), 4, {.score_prompt = true});
    bench.RunUntilIdle();
    ExpectScores(*sink, Prompt(33, 2));
    EXPECT_EQ(sink->tokens, Expected(Prompt(33, 2), 1, 4)) << max_scores;
    EXPECT_EQ(other->tokens, Expected(Prompt(9, 1), 0, 12)) << max_scores;
    EXPECT_TRUE(other->scores.empty());
  }
}

TEST(SchedulerTest, APreemptedPromptIsScoredOnce) {
  EngineLimits limits = Limits(8, 4, 3, 64);
  limits.max_num_scores = 2;
  Bench bench(limits);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 3; ++i) sinks.push_back(bench.Add(Prompt(8, i), 20, {.score_prompt = true}));
  bench.RunUntilIdle();
  EXPECT_GT(NumPreemptions(bench.scheduler), 0);
  for (int i = 0; i < 3; ++i) ExpectScores(*sinks[static_cast<size_t>(i)], Prompt(8, i));
}

TEST(SchedulerTest, ANaNEndsItsSequenceAloneScoredOrDrawn) {
  for (const int64_t position : {3, 8}) {  // of the prompt, and of the third token drawn
    Bench bench(Limits(16, 4, 2, 8));
    bench.engine.SpoilPosition(position);
    const auto sink = bench.Add(Prompt(6, 1), 9, {.score_prompt = true});
    const auto other = bench.Add(Prompt(2, 2), 1);
    bench.RunUntilIdle();
    EXPECT_EQ(sink->finish->reason, FinishReason::kError);
    EXPECT_EQ(sink->finish->status.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(static_cast<int64_t>(sink->scores.size() + sink->tokens.size()), position - 1);
    EXPECT_EQ(other->tokens, Expected(Prompt(2, 2), 1, 1));
    EXPECT_EQ(bench.scheduler.stats().num_free_blocks, 16);
  }
}

TEST(SchedulerTest, ScoresInFlightOfWhoeverLeavesAreDropped) {
  for (const bool abort : {false, true}) {
    Bench bench(Limits(16, 4, 2, 8));
    const auto sink = bench.Add(Prompt(30, 1), 9, {.score_prompt = true});
    bench.Step();
    const size_t scored = sink->scores.size();
    ASSERT_GT(scored, 0u);
    sink->cancelled = true;
    if (abort) {
      bench.scheduler.Abort();
      bench.Tell();
      EXPECT_FALSE(sink->finish.has_value()) << "that is for whoever tries it again to say";
    } else {
      bench.RunUntilIdle();
      EXPECT_EQ(sink->finish->reason, FinishReason::kCancelled);
    }
    EXPECT_EQ(sink->scores.size(), scored);
    EXPECT_EQ(bench.scheduler.stats().num_free_blocks, 16);
  }
}

TEST(SchedulerTest, TakesUpWhatWasComputedInItsScope) {
  Bench bench(Limits(32, 4, 2, 16));
  bench.Add(Prompt(13, 1), 2, {.scope = "a"});
  bench.RunUntilIdle();
  EXPECT_EQ(bench.scheduler.stats().num_free_blocks, 32);
  EXPECT_EQ(bench.scheduler.stats().num_cached_blocks, 3);
  std::vector<int32_t> longer = Prompt(12, 1);
  longer.insert(longer.end(), {5, 6, 7, 8, 9});
  struct Case {
    std::vector<int32_t> prompt;
    std::string scope;
    int64_t cached;
  };
  const Case cases[] = {{Prompt(13, 1), "a", 12}, {Prompt(12, 1), "a", 8}, {longer, "a", 12},
                        {Prompt(13, 1), "b", 0},  {Prompt(13, 1), "", 0},  {Prompt(13, 2), "a", 0}};
  for (const Case& c : cases) {
    const uint64_t seed = static_cast<uint64_t>(bench.next_id);
    const auto sink = bench.Add(c.prompt, 3, {.scope = c.scope});
    bench.RunUntilIdle();
    EXPECT_EQ(sink->cached, c.cached) << c.scope << " " << c.prompt.size();
    EXPECT_EQ(sink->tokens, Expected(c.prompt, seed, 3));
  }
}

TEST(SchedulerTest, ManyThatBeginAlikeComputeThatOnce) {
  Bench bench(Limits(64, 4, 8, 16));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 6; ++i) sinks.push_back(bench.Add(Prompt(33, 1), 4, {.scope = "a"}));
  const auto stranger = bench.Add(Prompt(5, 9), 4, {.scope = "b"});
  bench.RunUntilIdle();
  // 33 tokens once, of each other choice the last one, of each but the last token drawn; and the stranger's.
  EXPECT_EQ(bench.scheduler.stats().num_tokens_computed, 33 + 5 * 1 + 6 * 3 + 5 + 3);
  for (size_t i = 0; i < sinks.size(); ++i) {
    EXPECT_EQ(sinks[i]->cached, i == 0 ? 0 : 32);
    EXPECT_EQ(sinks[i]->tokens, Expected(Prompt(33, 1), i, 4));
  }
  EXPECT_EQ(stranger->tokens, Expected(Prompt(5, 9), 6, 4));
}

TEST(SchedulerTest, WhoWaitsForAPrefixGoesOnWhenItsComputerLeaves) {
  Bench bench(Limits(64, 4, 8, 4));
  const auto first = bench.Add(Prompt(33, 1), 4, {.scope = "a"});
  const auto second = bench.Add(Prompt(33, 1), 4, {.scope = "a"});
  bench.Step();
  EXPECT_EQ(bench.scheduler.stats().num_running, 1);
  first->cancelled = true;
  bench.RunUntilIdle();
  EXPECT_GE(second->cached.value_or(0), 4) << "what was computed stays";
  EXPECT_EQ(second->tokens, Expected(Prompt(33, 1), 1, 4));
}

TEST(SchedulerTest, AScoredPromptIsComputedWhole) {
  Bench bench(Limits(32, 4, 2, 16));
  bench.Add(Prompt(13, 1), 2, {.scope = "a"});
  bench.RunUntilIdle();
  const auto sink = bench.Add(Prompt(13, 1), 2, {.score_prompt = true, .scope = "a"});
  bench.RunUntilIdle();
  EXPECT_EQ(sink->cached, 0);
  ExpectScores(*sink, Prompt(13, 1));
}

TEST(SchedulerTest, RefusesWhatCanNeverFit) {
  const EngineLimits limits = {.max_model_len = 100, .num_blocks = 4, .block_size = 16};
  EXPECT_TRUE(CheckFits(32, 32, limits).ok());
  EXPECT_FALSE(CheckFits(32, 33, limits).ok());  // the pool
  EXPECT_FALSE(CheckFits(100, 1, limits).ok());  // the model
}

TEST(SchedulerTest, TakesOnNoMoreThanAStepCanStart) {
  Bench bench(Limits(64, 4, 8, 16));
  for (int i = 0; i < 10; ++i) bench.Add(Prompt(20, i), 2);
  bench.Pull();
  EXPECT_EQ(bench.scheduler.stats().num_running, 8) << "each gets at least an eighth of a step";
  bench.RunUntilIdle();
}

TEST(SchedulerTest, AShortPromptDoesNotWaitBehindALongOne) {
  Bench bench(Limits(256, 4, 4, 16));
  const auto long_prompt = bench.Add(Prompt(400, 1), 1);
  bench.Step();
  const auto short_prompt = bench.Add(Prompt(12, 2), 1);
  for (int i = 0; i < 4 && !short_prompt->finish.has_value(); ++i) bench.Step();
  EXPECT_TRUE(short_prompt->finish.has_value());
  EXPECT_FALSE(long_prompt->finish.has_value());
  bench.RunUntilIdle();
}

TEST(SchedulerTest, ALongPromptIsNotStarvedByShortOnes) {
  Bench bench(Limits(256, 4, 4, 16));
  const auto long_prompt = bench.Add(Prompt(400, 1), 1);
  for (int i = 0; i < 400 && !long_prompt->finish.has_value(); ++i) {
    bench.Add(Prompt(16, i), 1);
    bench.Step();
  }
  EXPECT_TRUE(long_prompt->finish.has_value());
}

TEST(SchedulerTest, PromptsTakeTheirShareWhileOthersDecode) {
  Bench bench(Limits(256, 4, 4, 40), {.max_prefill_share = 0.5});
  bench.Add(Prompt(4, 1), 100);
  bench.Step();
  bench.Step();
  bench.Add(Prompt(400, 2), 1);
  bench.Pull();
  EXPECT_EQ(bench.scheduler.Schedule().num_tokens(), 1 + 20);
}

TEST(SchedulerTest, AHigherClassTakesARowThatIsInUse) {
  Bench bench(Limits(64, 4, 2, 16));
  std::vector<std::shared_ptr<RecordingSink>> low;
  for (int i = 0; i < 2; ++i) low.push_back(bench.Add(Prompt(6, i), 30, {.priority = Priority::kLow}));
  for (int i = 0; i < 5; ++i) bench.Step();
  bench.line.clear();
  const auto high = bench.Add(Prompt(6, 7), 4, {.priority = Priority::kHigh});
  for (int i = 0; i < 7; ++i) bench.Step();
  EXPECT_TRUE(high->finish.has_value());
  EXPECT_EQ(NumPreemptions(bench.scheduler, PreemptionReason::kPriority), 1);
  EXPECT_GT(low[0]->tokens.size(), low[1]->tokens.size()) << "the newer gave way";
  bench.RunUntilIdle();
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(low[i]->tokens, Expected(Prompt(6, static_cast<int>(i)), i, 30));
  EXPECT_EQ(high->tokens, Expected(Prompt(6, 7), 2, 4));
}

TEST(SchedulerTest, AHigherClassTakesBlocksThatAreInUse) {
  Bench bench(Limits(12, 4, 4, 64));
  const auto low = bench.Add(Prompt(40, 1), 8, {.priority = Priority::kLow});
  for (int i = 0; i < 3; ++i) bench.Step();
  const auto high = bench.Add(Prompt(30, 2), 8, {.priority = Priority::kHigh});
  bench.RunUntilIdle();
  EXPECT_EQ(NumPreemptions(bench.scheduler, PreemptionReason::kPriority), 1);
  EXPECT_EQ(low->tokens, Expected(Prompt(40, 1), 0, 8));
  EXPECT_EQ(high->tokens, Expected(Prompt(30, 2), 1, 8));
}

TEST(SchedulerTest, EqualsDoNotPreemptEachOtherForARow) {
  Bench bench(Limits(64, 4, 2, 16));
  for (int i = 0; i < 4; ++i) bench.Add(Prompt(6, i), 10);
  bench.RunUntilIdle();
  const auto& preemptions = bench.scheduler.stats().num_preemptions;
  EXPECT_EQ(preemptions[0] + preemptions[1] + preemptions[2], 0);
}

TEST(SchedulerTest, ATenantWithoutARowTakesOneOfTheTenantWithMost) {
  TenantAccount greedy, modest, newcomer;
  Bench bench(Limits(64, 4, 4, 16));
  for (int i = 0; i < 3; ++i) bench.Add(Prompt(6, i), 30, {.account = &greedy});
  bench.Add(Prompt(6, 3), 30, {.account = &modest});
  for (int i = 0; i < 4; ++i) bench.Step();
  const auto sink = bench.Add(Prompt(6, 4), 2, {.account = &newcomer});
  for (int i = 0; i < 5; ++i) bench.Step();
  EXPECT_TRUE(sink->finish.has_value());
  EXPECT_EQ(NumPreemptions(bench.scheduler, PreemptionReason::kFairness), 1);
  EXPECT_EQ(modest.num_running, 1);
  bench.RunUntilIdle();
}

TEST(SchedulerTest, WhoCannotHaveEnoughPreemptsNobody) {
  TenantAccount one, two, newcomer;
  Bench bench(Limits(12, 4, 4, 64));
  bench.Add(Prompt(12, 1), 20, {.account = &one});
  bench.Add(Prompt(12, 2), 20, {.account = &two});
  bench.Step();
  const auto sink = bench.Add(Prompt(40, 3), 2, {.account = &newcomer});
  bench.RunUntilIdle();
  EXPECT_EQ(NumPreemptions(bench.scheduler, PreemptionReason::kFairness), 0);
  EXPECT_EQ(sink->tokens, Expected(Prompt(40, 3), 2, 2));
}

TEST(SchedulerTest, BlocksOfASequenceThatEndsInNaNAreNotTakenUp) {
  Bench bench(Limits(32, 4, 2, 16));
  bench.engine.SpoilPosition(13);
  const auto spoilt = bench.Add(Prompt(13, 1), 4, {.scope = "a"});
  bench.RunUntilIdle();
  EXPECT_EQ(spoilt->finish->reason, FinishReason::kError);
  EXPECT_EQ(bench.scheduler.stats().num_cached_blocks, 0);
}

TEST(SchedulerTest, WhatAPreemptedSequenceDrewIsTakenUpAgain) {
  Bench bench(Limits(64, 4, 1, 16));
  const auto low = bench.Add(Prompt(6, 1), 30, {.scope = "a", .priority = Priority::kLow});
  for (int i = 0; i < 20; ++i) bench.Step();
  bench.Add(Prompt(6, 2), 2, {.priority = Priority::kHigh});
  bench.RunUntilIdle();
  EXPECT_EQ(low->tokens, Expected(Prompt(6, 1), 0, 30));
  EXPECT_EQ(low->cached, 0) << "told once, when it first started";
  EXPECT_LT(bench.scheduler.stats().num_tokens_computed, 6 + 29 + 6 + 1 + 8)
      << "only the last blocks were computed anew";
}

TEST(SchedulerTest, ADeadlineEndsWhatRuns) {
  Bench bench(Limits(64, 4, 2, 16));
  const auto sink = bench.Add(Prompt(6, 1), 200);
  bench.line.back()->deadline = bench.clock.Now() + absl::Seconds(1);
  for (int i = 0; i < 5; ++i) bench.Step();
  EXPECT_FALSE(sink->finish.has_value());
  bench.clock.Advance(absl::Seconds(1));
  bench.RunUntilIdle();
  EXPECT_EQ(sink->finish->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(bench.scheduler.stats().num_free_blocks, 64);
}

TEST(SchedulerTest, SuspectsRunApart) {
  Bench bench(Limits(64, 4, 4, 16));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 3; ++i) {
    sinks.push_back(bench.Add(Prompt(6, i), 6));
    if (i < 2) bench.line.back()->progress.suspect_until = 8;
  }
  bench.Pull();
  EXPECT_EQ(bench.scheduler.stats().num_running, 2);
  bench.RunUntilIdle();
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(sinks[i]->tokens, Expected(Prompt(6, static_cast<int>(i)), i, 6));
}

// The whole life of 10,000 requests under arrivals, cancels, stops and a pool that is always too small: every output is
// what it would have been alone, every request ends once, and the pool is whole again.
TEST(SchedulerTest, PoolIsWholeAfterTenThousandRandomRequests) {
  struct Case {
    std::vector<int32_t> prompt;
    int max_tokens = 0;
    std::vector<int32_t> stops;
    bool scored = false;
    std::shared_ptr<RecordingSink> sink;
  };
  std::mt19937 rng(20261123);
  const auto uniform = [&rng](int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); };
  Bench bench(Limits(24, 4, 8, 24));
  const std::string scopes[] = {"", "a", "b"};
  std::vector<Case> cases;
  while (cases.size() < 10000) {
    for (int i = uniform(0, 3); i > 0 && bench.line.size() < 4; --i) {
      Case c{Prompt(uniform(1, 40), uniform(0, 9)), uniform(1, 30), {}, uniform(0, 4) == 0, nullptr};
      for (int stop = 0; stop < 20; ++stop) c.stops.push_back(uniform(0, kVocab - 1));
      c.sink = bench.Add(c.prompt, c.max_tokens,
                         {.stops = c.stops,
                          .score_prompt = c.scored,
                          .scope = scopes[uniform(0, 2)],
                          .priority = static_cast<Priority>(uniform(0, 2))});
      cases.push_back(std::move(c));
    }
    if (!cases.empty() && uniform(0, 9) == 0) {
      const int recent = std::min<int>(static_cast<int>(cases.size()), 12);
      cases[cases.size() - static_cast<size_t>(uniform(1, recent))].sink->cancelled = true;
    }
    ASSERT_NO_FATAL_FAILURE(bench.Step());
  }
  bench.RunUntilIdle();
  EXPECT_GT(NumPreemptions(bench.scheduler), 100);
  EXPECT_GT(bench.scheduler.stats().num_cached_tokens, 1000);
  EXPECT_GT(bench.scheduler.stats().num_evictions, 100);
  EXPECT_EQ(bench.scheduler.stats().num_free_blocks, 24);
  for (size_t i = 0; i < cases.size(); ++i) {
    const RecordingSink& sink = *cases[i].sink;
    ASSERT_TRUE(sink.finish.has_value()) << i;
    if (sink.finish->reason == FinishReason::kLength) {
      EXPECT_EQ(static_cast<int>(sink.tokens.size()), cases[i].max_tokens);
    }
    auto expected = Expected(cases[i].prompt, i, static_cast<int>(sink.tokens.size()) + 1);
    if (sink.finish->reason == FinishReason::kStop) {
      ASSERT_EQ(sink.finish->stop_token, expected.back());
      ASSERT_THAT(cases[i].stops, testing::Contains(expected.back()));
    }
    expected.pop_back();
    ASSERT_EQ(sink.tokens, expected) << i;
    if (cases[i].scored && !sink.tokens.empty()) {
      ASSERT_NO_FATAL_FAILURE(ExpectScores(sink, cases[i].prompt));
    }
    for (const int32_t token : expected) ASSERT_THAT(cases[i].stops, testing::Not(testing::Contains(token)));
  }
}

}  // namespace
}  // namespace weft
