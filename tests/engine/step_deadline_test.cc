#include "engine/step_deadline.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

constexpr absl::Duration kLeast = absl::Seconds(5);

StepDeadline After(int num_steps, absl::Duration took, int num_tokens) {
  StepDeadline deadline(kLeast);
  for (int i = 0; i < num_steps; ++i) deadline.Observe(took, num_tokens);
  return deadline;
}

TEST(StepDeadlineTest, FastStepsHaveTheLeast) {
  EXPECT_EQ(After(10, absl::Milliseconds(1), 8).Allowed(8), kLeast);
  EXPECT_GT(After(0, absl::Milliseconds(1), 8).Allowed(8), kLeast) << "nothing is known yet";
}

TEST(StepDeadlineTest, SlowStepsHaveManyTimesWhatOthersTook) {
  EXPECT_EQ(After(10, absl::Seconds(2), 8).Allowed(8), absl::Seconds(40));
}

TEST(StepDeadlineTest, TheFirstLongPromptAfterShortStepsMayTakeInProportion) {
  EXPECT_EQ(After(10, absl::Milliseconds(300), 1).Allowed(512), absl::Milliseconds(300) * 512 * 4);
  StepDeadline deadline = After(10, absl::Milliseconds(300), 1);
  deadline.Observe(absl::Seconds(30), 512);
  EXPECT_EQ(deadline.Allowed(512), absl::Minutes(10));
}

TEST(StepDeadlineTest, ShortStepsDontLetLongOnesBeForgotten) {
  StepDeadline deadline = After(5, absl::Seconds(30), 512);
  for (int i = 0; i < 10'000; ++i) deadline.Observe(absl::Milliseconds(5), 1);
  EXPECT_EQ(deadline.Allowed(512), absl::Minutes(10));
  EXPECT_EQ(deadline.Allowed(1), kLeast);
}

TEST(StepDeadlineTest, TheSecondStepMayTakeInProportionToTheFirst) {
  EXPECT_EQ(After(1, absl::Milliseconds(300), 1).Allowed(512), absl::Milliseconds(300) * 512 * 4);
}

TEST(StepDeadlineTest, BetweenSizesThatWereSeenTheLargerIsTheMeasure) {
  StepDeadline deadline = After(10, absl::Milliseconds(50), 1);
  for (int i = 0; i < 10; ++i) deadline.Observe(absl::Milliseconds(600), 512);
  EXPECT_EQ(deadline.Allowed(256), absl::Seconds(12));
}

TEST(StepDeadlineTest, OneSlowStepIsForgotten) {
  StepDeadline deadline = After(1, absl::Seconds(10), 8);
  for (int i = 0; i < 10'000; ++i) deadline.Observe(absl::Milliseconds(1), 8);
  EXPECT_EQ(deadline.Allowed(8), kLeast);
}

TEST(StepDeadlineTest, WithoutALimitThereIsNone) {
  StepDeadline deadline(absl::InfiniteDuration());
  EXPECT_EQ(deadline.Allowed(1), absl::InfiniteDuration());
  for (int i = 0; i < 10; ++i) deadline.Observe(absl::Seconds(1), 8);
  EXPECT_EQ(deadline.Allowed(1), absl::InfiniteDuration());
}

}  // namespace
}  // namespace weft
