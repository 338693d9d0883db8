#include "scheduler/prefill_pacer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace weft {
namespace {

// A machine where a step takes so long.
absl::Duration StepTime(int prompt_tokens, int context) {
  return absl::Microseconds(500) + prompt_tokens * (absl::Microseconds(50) + context * absl::Nanoseconds(10));
}

TEST(PrefillPacerTest, WithoutABoundTheShareHolds) {
  PrefillPacer pacer({.max_tokens = 512, .max_share = 0.25});
  for (int i = 0; i < 10; ++i) pacer.Observe({pacer.max_tokens(true)}, absl::Seconds(1));
  EXPECT_EQ(pacer.max_tokens(true), 128);
  EXPECT_EQ(pacer.max_tokens(false), 512) << "the share is for those who decode";
}

TEST(PrefillPacerTest, TheBoundHoldsWhereNobodyDecodesToo) {
  PrefillPacer pacer({.max_tokens = 4096, .max_share = 0.01, .max_step_time = absl::Milliseconds(20)});
  for (int i = 0; i < 100; ++i) pacer.Observe({pacer.max_tokens(false)}, StepTime(pacer.max_tokens(false), 0));
  EXPECT_LE(StepTime(pacer.max_tokens(false), 0), absl::Milliseconds(20));
  EXPECT_GT(pacer.max_tokens(false), 200);
  EXPECT_EQ(pacer.max_tokens(true), 40);
}

// As many tokens at a position as the pacer allows, in a step.
int TokensAt(const PrefillPacer& pacer, int position) {
  return std::max(1, static_cast<int>(pacer.max_tokens(true) / pacer.Cost(position)));
}

absl::Duration RunStep(PrefillPacer& pacer, int position, int tokens) {
  PromptWork work;
  work.Add(tokens, position);
  const absl::Duration took = StepTime(tokens, static_cast<int>(work.mean_position()));
  pacer.Observe(work, took);
  return took;
}

TEST(PrefillPacerTest, StepsStayWithinTheBoundWhileTheContextGrows) {
  const absl::Duration bound = absl::Milliseconds(20);
  PrefillPacer pacer({.max_tokens = 4096, .max_share = 1.0, .max_step_time = bound});
  int context = 0, num_steps = 0;
  for (; context < 100'000; ++num_steps) {
    const int tokens = TokensAt(pacer, context);
    EXPECT_LE(RunStep(pacer, context, tokens), bound) << context;
    context += tokens;
  }
  // No fewer tokens than half of what the bound allows: 100,000 tokens take 55 s here if they are computed alone.
  EXPECT_LE(num_steps * bound, absl::Seconds(2 * 55));
}

TEST(PrefillPacerTest, ShortPromptsBesideLongOnesGetMostOfWhatTheBoundAllows) {
  const absl::Duration bound = absl::Milliseconds(20);
  PrefillPacer pacer({.max_tokens = 4096, .max_share = 1.0, .max_step_time = bound});
  absl::Duration early, late;
  for (int i = 0; i < 1000; ++i) {
    early = RunStep(pacer, 0, TokensAt(pacer, 0));
    late = RunStep(pacer, 50'000, TokensAt(pacer, 50'000));
    pacer.Observe({}, absl::Microseconds(500));
  }
  for (const absl::Duration took : {early, late}) {
    EXPECT_LE(took, bound);
    EXPECT_GE(took, bound * 3 / 4);
  }
}

TEST(PrefillPacerTest, LearnsFromStepsThatAreOnlyAShare) {
  PrefillPacer pacer({.max_tokens = 256, .max_share = 0.1, .max_step_time = absl::Milliseconds(1)});
  for (int i = 0; i < 50; ++i) pacer.Observe({pacer.max_tokens(true)}, absl::Milliseconds(5));
  EXPECT_EQ(pacer.max_tokens(true), 8);
}

TEST(PrefillPacerTest, RecoversFromOneSlowStep) {
  PrefillPacer pacer({.max_tokens = 4096, .max_share = 1.0, .max_step_time = absl::Milliseconds(20)});
  for (int i = 0; i < 50; ++i) pacer.Observe({pacer.max_tokens(true)}, StepTime(pacer.max_tokens(true), 0));
  const int before = pacer.max_tokens(true);
  pacer.Observe({before}, absl::Seconds(2));
  EXPECT_LT(pacer.max_tokens(true), before);
  for (int i = 0; i < 20; ++i) pacer.Observe({pacer.max_tokens(true)}, StepTime(pacer.max_tokens(true), 0));
  EXPECT_GE(pacer.max_tokens(true), before * 8 / 10);
}

// A machine where one step in twenty takes several times as long: what a mean and a deviation say little about.
TEST(PrefillPacerTest, FewStepsAreTooLongWhereSomeTakeMuchLonger) {
  const absl::Duration bound = absl::Milliseconds(20);
  PrefillPacer pacer({.max_tokens = 4096, .max_share = 1.0, .max_step_time = bound});
  std::mt19937 rng(1);
  int num_too_long = 0;
  constexpr int kWarmUp = 1000, kSteps = 20'000;
  for (int i = -kWarmUp; i < kSteps; ++i) {
    const int slowness = rng() % 20 == 0 ? 3 : 1;
    const absl::Duration took = slowness * StepTime(pacer.max_tokens(true), 0);
    if (i >= 0 && took > bound) ++num_too_long;
    pacer.Observe({pacer.max_tokens(true)}, took);
  }
  EXPECT_LE(num_too_long, kSteps / 100);
  EXPECT_GE(pacer.max_tokens(true), 32) << "four times the least";
}

TEST(PrefillPacerTest, APromptComesToAnEndHoweverTightTheBound) {
  PrefillPacer pacer({.max_tokens = 4096, .max_share = 1.0, .max_step_time = absl::Microseconds(1)});
  for (int i = 0; i < 50; ++i) pacer.Observe({pacer.max_tokens(true)}, absl::Seconds(1));
  EXPECT_EQ(pacer.max_tokens(true), 8);
}

TEST(PrefillPacerTest, ASmallRestSaysNothingAboutAFullStep) {
  PrefillPacer pacer({.max_tokens = 4096, .max_share = 1.0, .max_step_time = absl::Milliseconds(20)});
  const int before = pacer.max_tokens(true);
  pacer.Observe({3}, absl::Microseconds(600));
  EXPECT_EQ(pacer.max_tokens(true), before);
}

}  // namespace
}  // namespace weft
