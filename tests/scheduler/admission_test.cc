// Who may start, from which cached blocks, and who gives way: Scheduler::Judge and Add.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "scheduler/scheduler.h"
#include "scheduler/tenant_account.h"
#include "tests/scheduler/stepped_scheduler.h"

namespace weft {
namespace {

TEST(SchedulerTest, TakesUpWhatWasComputedInItsScope) {
  SteppedScheduler bench(Limits(32, 4, 2, 16));
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
  SteppedScheduler bench(Limits(64, 4, 8, 16));
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
  SteppedScheduler bench(Limits(64, 4, 8, 4));
  const auto first = bench.Add(Prompt(33, 1), 4, {.scope = "a"});
  const auto second = bench.Add(Prompt(33, 1), 4, {.scope = "a"});
  bench.Step();
  EXPECT_EQ(bench.scheduler.stats().num_running, 1);
  first->cancelled = true;
  bench.RunUntilIdle();
  EXPECT_GE(second->cached.value_or(0), 4) << "what was computed stays";
  EXPECT_EQ(second->tokens, Expected(Prompt(33, 1), 1, 4));
}

// One of a lower class may take for ever; what it has computed is taken up all the same.
TEST(SchedulerTest, NobodyWaitsForAPrefixThatALowerClassComputes) {
  SteppedScheduler bench(Limits(64, 4, 8, 4));
  const auto low = bench.Add(Prompt(33, 1), 4, {.scope = "a", .priority = Priority::kLow});
  bench.Step();
  const auto high = bench.Add(Prompt(33, 1), 4, {.scope = "a", .priority = Priority::kHigh});
  bench.Pull();
  EXPECT_EQ(bench.scheduler.stats().num_running, 2);
  const auto normal = bench.Add(Prompt(33, 1), 4, {.scope = "a"});
  bench.Pull();
  EXPECT_EQ(bench.scheduler.stats().num_running, 2) << "it waits for the higher class";
  while (!high->finish.has_value()) ASSERT_NO_FATAL_FAILURE(bench.Step());
  EXPECT_FALSE(low->finish.has_value());
  bench.RunUntilIdle();
  EXPECT_GT(*high->cached, 0);
  EXPECT_LT(*high->cached, 32);
  EXPECT_EQ(normal->cached, 32);
  EXPECT_EQ(low->tokens, Expected(Prompt(33, 1), 0, 4));
  EXPECT_EQ(high->tokens, Expected(Prompt(33, 1), 1, 4));
}

TEST(SchedulerTest, AScoredPromptIsComputedWhole) {
  SteppedScheduler bench(Limits(32, 4, 2, 16));
  bench.Add(Prompt(13, 1), 2, {.scope = "a"});
  bench.RunUntilIdle();
  const auto sink = bench.Add(Prompt(13, 1), 2, {.score_prompt = true, .scope = "a"});
  bench.RunUntilIdle();
  EXPECT_EQ(sink->cached, 0);
  ExpectScores(*sink, Prompt(13, 1));
}

TEST(SchedulerTest, TakesOnNoMoreThanAStepCanStart) {
  SteppedScheduler bench(Limits(64, 4, 8, 16));
  for (int i = 0; i < 10; ++i) bench.Add(Prompt(20, i), 2);
  bench.Pull();
  EXPECT_EQ(bench.scheduler.stats().num_running, 8) << "each gets at least an eighth of a step";
  bench.RunUntilIdle();
}

TEST(SchedulerTest, AHigherClassTakesARowThatIsInUse) {
  SteppedScheduler bench(Limits(64, 4, 2, 16));
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
  SteppedScheduler bench(Limits(12, 4, 4, 64));
  const auto low = bench.Add(Prompt(40, 1), 8, {.priority = Priority::kLow});
  for (int i = 0; i < 3; ++i) bench.Step();
  const auto high = bench.Add(Prompt(30, 2), 8, {.priority = Priority::kHigh});
  bench.RunUntilIdle();
  EXPECT_EQ(NumPreemptions(bench.scheduler, PreemptionReason::kPriority), 1);
  EXPECT_EQ(low->tokens, Expected(Prompt(40, 1), 0, 8));
  EXPECT_EQ(high->tokens, Expected(Prompt(30, 2), 1, 8));
}

TEST(SchedulerTest, EqualsDoNotPreemptEachOtherForARow) {
  SteppedScheduler bench(Limits(64, 4, 2, 16));
  for (int i = 0; i < 4; ++i) bench.Add(Prompt(6, i), 10);
  bench.RunUntilIdle();
  const auto& preemptions = bench.scheduler.stats().num_preemptions;
  EXPECT_EQ(preemptions[0] + preemptions[1] + preemptions[2], 0);
}

TEST(SchedulerTest, ATenantWithoutARowTakesOneOfTheTenantWithMost) {
  TenantAccount greedy, modest, newcomer;
  SteppedScheduler bench(Limits(64, 4, 4, 16));
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
  SteppedScheduler bench(Limits(12, 4, 4, 64));
  bench.Add(Prompt(12, 1), 20, {.account = &one});
  bench.Add(Prompt(12, 2), 20, {.account = &two});
  bench.Step();
  const auto sink = bench.Add(Prompt(40, 3), 2, {.account = &newcomer});
  bench.RunUntilIdle();
  EXPECT_EQ(NumPreemptions(bench.scheduler, PreemptionReason::kFairness), 0);
  EXPECT_EQ(sink->tokens, Expected(Prompt(40, 3), 2, 2));
}

TEST(SchedulerTest, BlocksOfASequenceThatEndsInNaNAreNotTakenUp) {
  SteppedScheduler bench(Limits(32, 4, 2, 16));
  bench.engine.SpoilPosition(13);
  const auto spoilt = bench.Add(Prompt(13, 1), 4, {.scope = "a"});
  bench.RunUntilIdle();
  EXPECT_EQ(spoilt->finish->reason, FinishReason::kError);
  EXPECT_EQ(bench.scheduler.stats().num_cached_blocks, 0);
}

TEST(SchedulerTest, WhatAPreemptedSequenceDrewIsTakenUpAgain) {
  SteppedScheduler bench(Limits(64, 4, 1, 16));
  const auto low = bench.Add(Prompt(6, 1), 30, {.scope = "a", .priority = Priority::kLow});
  for (int i = 0; i < 20; ++i) bench.Step();
  bench.Add(Prompt(6, 2), 2, {.priority = Priority::kHigh});
  bench.RunUntilIdle();
  EXPECT_EQ(low->tokens, Expected(Prompt(6, 1), 0, 30));
  EXPECT_EQ(low->cached, 0) << "told once, when it first started";
  EXPECT_LT(bench.scheduler.stats().num_tokens_computed, 6 + 29 + 6 + 1 + 8)
      << "only the last blocks were computed anew";
}

TEST(SchedulerTest, SuspectsRunApart) {
  SteppedScheduler bench(Limits(64, 4, 4, 16));
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

TEST(SchedulerTest, OneThatIsTooLargeIsToldFromOneThatHasNoRow) {
  SteppedScheduler bench(Limits(12, 4, 3, 64));
  bench.Add(Prompt(24, 1), 8);
  bench.Step();
  bench.Add(Prompt(30, 2), 8);
  bench.Add(Prompt(4, 3), 8);
  EXPECT_EQ(bench.scheduler.Judge(*bench.line[0]), Verdict::kTooLarge);
  EXPECT_EQ(bench.scheduler.Judge(*bench.line[1]), Verdict::kTake);
  SteppedScheduler full(Limits(12, 4, 1, 64));
  full.Add(Prompt(4, 1), 8);
  full.Step();
  full.Add(Prompt(4, 2), 8);
  EXPECT_EQ(full.scheduler.Judge(*full.line[0]), Verdict::kBlocked);
}

// Room that is being made for one is not given to another meanwhile.
TEST(SchedulerTest, WhoWaitsForThoseThatGaveWayIsNotOvertaken) {
  SteppedScheduler bench(Limits(12, 4, 4, 64));
  bench.Add(Prompt(40, 1), 8, {.priority = Priority::kLow});
  bench.Step();
  bench.Step();
  const auto high = bench.Add(Prompt(30, 2), 8, {.priority = Priority::kHigh});
  const Request& waiting = *bench.line[0];
  bench.scheduler.Schedule();  // the low one is in a step when it must give way
  for (int look = 0; look < 2; ++look) {
    EXPECT_EQ(bench.scheduler.Judge(waiting), Verdict::kBlocked) << look;
    EXPECT_TRUE(bench.scheduler.makes_room());
  }
  EXPECT_EQ(NumPreemptions(bench.scheduler, PreemptionReason::kPriority), 1);
}

}  // namespace
}  // namespace weft
