#include "scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/scheduler/stepped_scheduler.h"

namespace weft {
namespace {

TEST(SchedulerTest, DrawsUntilMaxTokens) {
  SteppedScheduler bench(Limits(8, 4, 2, 16));
  const auto sink = bench.Add(Prompt(5, 1), 9);
  bench.RunUntilIdle();
  EXPECT_EQ(sink->tokens, Expected(Prompt(5, 1), 0, 9));
  EXPECT_EQ(sink->finish->reason, FinishReason::kLength);
}

TEST(SchedulerTest, EndsAtAStopTokenAndNamesIt) {
  const std::vector<int32_t> expected = Expected(Prompt(5, 1), 0, 9);
  SteppedScheduler bench(Limits(8, 4, 2, 16));
  const auto sink = bench.Add(Prompt(5, 1), 9, {.stops = {expected[4]}});
  bench.RunUntilIdle();
  EXPECT_EQ(sink->tokens, std::vector<int32_t>(expected.begin(), expected.begin() + 4));
  EXPECT_EQ(sink->finish->reason, FinishReason::kStop);
  EXPECT_EQ(sink->finish->stop_token, expected[4]);
  EXPECT_EQ(bench.scheduler.stats().num_free_blocks, 8);
}

TEST(SchedulerTest, CutsPromptsToTheTokenBudget) {
  for (const int budget : {1, 3, 7, 64}) {
    SteppedScheduler bench(Limits(16, 4, 2, budget));
    const auto sink = bench.Add(Prompt(33, 2), 4);
    bench.RunUntilIdle();
    EXPECT_EQ(sink->tokens, Expected(Prompt(33, 2), 0, 4)) << budget;
  }
}

TEST(SchedulerTest, NextTokensDoNotWaitForALongPrompt) {
  SteppedScheduler bench(Limits(64, 4, 4, 8));
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
  SteppedScheduler bench(Limits(8, 4, 3, 64));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 3; ++i) sinks.push_back(bench.Add(Prompt(6, i), 20));
  bench.RunUntilIdle();
  EXPECT_GT(NumPreemptions(bench.scheduler), 0);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(sinks[static_cast<size_t>(i)]->tokens, Expected(Prompt(6, i), static_cast<uint64_t>(i), 20)) << i;
  }
}

TEST(SchedulerTest, NeverPreemptsTheOldest) {
  SteppedScheduler bench(Limits(8, 4, 3, 64));
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
  SteppedScheduler bench(Limits(8, 4, 3, 64));
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
  SteppedScheduler first(Limits(8, 4, 2, 64));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 2; ++i) sinks.push_back(first.Add(Prompt(6, i), 10));
  for (int i = 0; i < 4; ++i) first.Step();
  std::vector<Scheduler::Survivor> survivors = first.scheduler.Abort();
  first.Tell();
  EXPECT_FALSE(first.scheduler.HasWork());
  EXPECT_EQ(first.scheduler.stats().num_free_blocks, 8);
  first.scheduler.CheckInvariants();
  ASSERT_EQ(survivors.size(), 2u);
  SteppedScheduler second(Limits(8, 4, 2, 64));
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
  SteppedScheduler bench(Limits(16, 4, 2, 64));
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

TEST(SchedulerTest, ScoresAPromptWithinTheBoundOfAStep) {
  for (const int max_scores : {1, 3, 64}) {
    EngineLimits limits = Limits(32, 4, 2, 16);
    limits.max_num_scores = max_scores;
    SteppedScheduler bench(limits);
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
  SteppedScheduler bench(limits);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 3; ++i) sinks.push_back(bench.Add(Prompt(8, i), 20, {.score_prompt = true}));
  bench.RunUntilIdle();
  EXPECT_GT(NumPreemptions(bench.scheduler), 0);
  for (int i = 0; i < 3; ++i) ExpectScores(*sinks[static_cast<size_t>(i)], Prompt(8, i));
}

TEST(SchedulerTest, ANaNEndsItsSequenceAloneScoredOrDrawn) {
  for (const int64_t position : {3, 8}) {  // of the prompt, and of the third token drawn
    SteppedScheduler bench(Limits(16, 4, 2, 8));
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
    SteppedScheduler bench(Limits(16, 4, 2, 8));
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

TEST(SchedulerTest, RefusesWhatCanNeverFit) {
  const EngineLimits limits = {.max_model_len = 100, .num_blocks = 4, .block_size = 16};
  EXPECT_TRUE(CheckFits(32, 32, limits).ok());
  EXPECT_FALSE(CheckFits(32, 33, limits).ok());  // the pool
  EXPECT_FALSE(CheckFits(100, 1, limits).ok());  // the model
}

TEST(SchedulerTest, AShortPromptDoesNotWaitBehindALongOne) {
  SteppedScheduler bench(Limits(256, 4, 4, 16));
  const auto long_prompt = bench.Add(Prompt(400, 1), 1);
  bench.Step();
  const auto short_prompt = bench.Add(Prompt(12, 2), 1);
  for (int i = 0; i < 4 && !short_prompt->finish.has_value(); ++i) bench.Step();
  EXPECT_TRUE(short_prompt->finish.has_value());
  EXPECT_FALSE(long_prompt->finish.has_value());
  bench.RunUntilIdle();
}

TEST(SchedulerTest, ALongPromptIsNotStarvedByShortOnes) {
  SteppedScheduler bench(Limits(256, 4, 4, 16));
  const auto long_prompt = bench.Add(Prompt(400, 1), 1);
  for (int i = 0; i < 400 && !long_prompt->finish.has_value(); ++i) {
    bench.Add(Prompt(16, i), 1);
    bench.Step();
  }
  EXPECT_TRUE(long_prompt->finish.has_value());
}

TEST(SchedulerTest, PromptsTakeTheirShareWhileOthersDecode) {
  SteppedScheduler bench(Limits(256, 4, 4, 40), {.max_prefill_share = 0.5});
  bench.Add(Prompt(4, 1), 100);
  bench.Step();
  bench.Step();
  bench.Add(Prompt(400, 2), 1);
  bench.Pull();
  EXPECT_EQ(bench.scheduler.Schedule().num_tokens(), 1 + 20);
}

TEST(SchedulerTest, PromptsShareAStepByTheirTenantsWeights) {
  TenantAccount heavy, light;
  SteppedScheduler bench(Limits(256, 4, 4, 40));
  bench.Add(Prompt(240, 1), 1, {.account = &heavy});
  bench.line.back()->weight = 3;
  for (int i = 2; i < 4; ++i) bench.Add(Prompt(240, i), 1, {.account = &light});
  bench.Pull();
  const Batch& batch = bench.scheduler.Schedule();
  ASSERT_EQ(batch.num_rows(), 3);
  std::vector<int> tokens(3);  // by slot, in the order of their start
  for (size_t row = 0; row < 3; ++row) {
    tokens[static_cast<size_t>(batch.slots[row])] = batch.row_begin[row + 1] - batch.row_begin[row];
  }
  EXPECT_EQ(tokens, (std::vector<int>{30, 5, 5}));
}

// So no stage waits for a token that another still draws, and none has more than its part of them in a step.
TEST(SchedulerTest, SequencesTakeTurnsInTheStagesOfAPipeline) {
  EngineLimits limits = Limits(64, 4, 8, 64);
  limits.num_stages = 2;
  SteppedScheduler bench(limits);
  for (int i = 0; i < 4; ++i) bench.Add(Prompt(1, i), 50);
  bench.Pull();
  std::vector<std::vector<int32_t>> steps;
  for (int i = 0; i < 4; ++i) {
    const Batch& batch = bench.scheduler.Schedule();
    steps.push_back(batch.slots);
    std::sort(steps.back().begin(), steps.back().end());
    bench.scheduler.CheckInvariants();
  }
  EXPECT_EQ(steps[0].size(), 2u);
  EXPECT_EQ(steps[1].size(), 2u);
  EXPECT_NE(steps[0], steps[1]);
  EXPECT_EQ(steps[2], steps[0]);
  EXPECT_EQ(steps[3], steps[1]);
}

TEST(SchedulerTest, APromptsChunksFollowEachOtherThroughAPipeline) {
  EngineLimits limits = Limits(64, 4, 8, 16);
  limits.num_stages = 3;
  SteppedScheduler bench(limits);
  bench.Add(Prompt(60, 1), 5);
  bench.Pull();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(bench.scheduler.Schedule().num_tokens(), 16) << i;
}

TEST(SchedulerTest, ADeadlineEndsWhatRuns) {
  SteppedScheduler bench(Limits(64, 4, 2, 16));
  const auto sink = bench.Add(Prompt(6, 1), 200);
  bench.line.back()->deadline = bench.clock.Now() + absl::Seconds(1);
  for (int i = 0; i < 5; ++i) bench.Step();
  EXPECT_FALSE(sink->finish.has_value());
  bench.clock.Advance(absl::Seconds(1));
  bench.RunUntilIdle();
  EXPECT_EQ(sink->finish->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(bench.scheduler.stats().num_free_blocks, 64);
}

TEST(SchedulerTest, AClockThatJumpsBackEndsNothingAndNoWaitIsNegative) {
  SteppedScheduler bench(Limits(64, 4, 2, 16), {.max_itl = absl::Milliseconds(10)});
  const auto sink = bench.Add(Prompt(6, 1), 200);
  bench.line.back()->deadline = bench.clock.Now() + absl::Seconds(1);
  const auto patient = bench.Add(Prompt(40, 2), 200);
  bench.clock.Advance(-absl::Hours(1));
  for (int i = 0; i < 5; ++i) bench.Step();
  EXPECT_EQ(bench.scheduler.stats().queue_seconds.sum, 0);
  EXPECT_FALSE(sink->finish.has_value());
  bench.clock.Advance(-absl::Hours(1));
  for (int i = 0; i < 5; ++i) bench.Step();
  EXPECT_FALSE(sink->finish.has_value());
  bench.clock.Advance(absl::Hours(3));
  bench.RunUntilIdle();
  EXPECT_EQ(sink->finish->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(patient->tokens, Expected(Prompt(40, 2), 1, 200));
}

// The whole life of 10,000 requests under arrivals, cancels, stops and a pool that is always too small: every output is
// what it would have been alone, every request ends once, and the pool is whole again. By stages of a pipeline.
class RandomRequestsTest : public testing::TestWithParam<int> {};

TEST_P(RandomRequestsTest, PoolIsWholeAfterTenThousand) {
  struct Case {
    std::vector<int32_t> prompt;
    int max_tokens = 0;
    std::vector<int32_t> stops;
    bool scored = false;
    std::shared_ptr<RecordingSink> sink;
  };
  std::mt19937 rng(20261123);
  const auto uniform = [&rng](int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); };
  EngineLimits limits = Limits(24, 4, 8, 24);
  limits.num_stages = GetParam();
  SteppedScheduler bench(limits);
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

INSTANTIATE_TEST_SUITE_P(Stages, RandomRequestsTest, testing::Values(1, 2, 5),
                         [](const auto& stages) { return std::to_string(stages.param); });

}  // namespace
}  // namespace weft
