#include "scheduler/row_pacer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace weft {
namespace {

constexpr absl::Duration kBound = absl::Milliseconds(10);

struct Machine {
  absl::Duration step, row;
  absl::Duration Step(int rows) const { return step + row * rows; }
};

// As many rows as are allowed, or fewer, as they come and go.
void Drive(RowPacer& pacer, const Machine& machine, int num_steps, std::mt19937& rng) {
  int rows = 1;
  for (int i = 0; i < num_steps; ++i) {
    rows += rng() % 4 == 0 ? -1 : 1;
    rows = std::clamp(rows, 1, pacer.max_rows());
    pacer.Observe(rows, machine.Step(rows));
  }
}

TEST(RowPacerTest, WithoutABoundAllMayRun) {
  RowPacer pacer({.max_rows = 64});
  for (int i = 0; i < 100; ++i) pacer.Observe(64, absl::Seconds(1));
  EXPECT_EQ(pacer.max_rows(), 64);
}

TEST(RowPacerTest, AsManyRunAsTheBoundAllows) {
  RowPacer pacer({.max_rows = 256, .max_step_time = kBound});
  std::mt19937 rng(1);
  Drive(pacer, {absl::Milliseconds(1), absl::Microseconds(100)}, 1000, rng);
  EXPECT_NEAR(pacer.max_rows(), 90, 4);
  Drive(pacer, {absl::Milliseconds(1), absl::Microseconds(300)}, 3000, rng);
  EXPECT_NEAR(pacer.max_rows(), 30, 4) << "the context has grown";
  Drive(pacer, {absl::Milliseconds(1), absl::Microseconds(10)}, 3000, rng);
  EXPECT_EQ(pacer.max_rows(), 256);
}

TEST(RowPacerTest, RowsThatNeverChangeBecomeFewerToo) {
  RowPacer pacer({.max_rows = 64, .max_step_time = kBound});
  const Machine machine{absl::Milliseconds(1), absl::Microseconds(500)};
  for (int i = 0; i < 1000; ++i) pacer.Observe(pacer.max_rows(), machine.Step(pacer.max_rows()));
  EXPECT_NEAR(pacer.max_rows(), 18, 2);
}

// Where a step takes too long whatever the rows, fewer of them would only be a waste.
TEST(RowPacerTest, NoFewerThanTakeAsLongAsTheRestOfAStep) {
  RowPacer pacer({.max_rows = 256, .max_step_time = kBound});
  std::mt19937 rng(1);
  Drive(pacer, {absl::Milliseconds(20), absl::Microseconds(500)}, 3000, rng);
  EXPECT_NEAR(pacer.max_rows(), 40, 4);
}

// While few want to run, nothing is learned of what many would take; and a burst that comes then needn't wait.
TEST(RowPacerTest, AQuietTimeTakesNothingAway) {
  RowPacer pacer({.max_rows = 256, .max_step_time = kBound});
  std::mt19937 rng(1);
  const Machine machine{absl::Milliseconds(1), absl::Microseconds(100)};
  Drive(pacer, machine, 1000, rng);
  const int before = pacer.max_rows();
  for (int i = 0; i < 10'000; ++i) pacer.Observe(1 + i % 3, machine.Step(1 + i % 3));
  EXPECT_EQ(pacer.max_rows(), before);
}

TEST(RowPacerTest, ComesBackFromFewRowsWhereTheyBecomeCheap) {
  RowPacer pacer({.max_rows = 64, .max_step_time = kBound});
  std::mt19937 rng(1);
  Drive(pacer, {absl::Milliseconds(11), absl::Milliseconds(15)}, 3000, rng);
  EXPECT_LE(pacer.max_rows(), 4);
  Drive(pacer, {absl::Milliseconds(11), absl::Microseconds(100)}, 3000, rng);
  EXPECT_GE(pacer.max_rows(), 32) << "as long as the rest of a step takes, and few are a waste";
}

// Fewer rows happen to take longer, as where others take the machine while a request comes and goes: a burst that comes
// then must not find that rows are free.
TEST(RowPacerTest, NoMoreThanWereTriedFollowFromRowsThatRunAgainstTheirCost) {
  RowPacer pacer({.max_rows = 256, .max_step_time = kBound});
  std::mt19937 rng(1);
  const Machine machine{absl::Milliseconds(1), absl::Microseconds(500)};
  Drive(pacer, machine, 1000, rng);
  for (int i = 0; i < 20'000; ++i) {
    const int fewer = static_cast<int>(rng() % 3);
    const int rows = std::min(20, pacer.max_rows()) - fewer;
    pacer.Observe(rows, machine.Step(rows) * (1 + 0.1 * fewer));
    ASSERT_LE(pacer.max_rows(), 36) << "twice as many as keep the bound, after " << i;
  }
}

TEST(RowPacerTest, OneRowMayAlwaysRun) {
  RowPacer pacer({.max_rows = 256, .max_step_time = absl::Nanoseconds(1)});
  for (int i = 0; i < 100; ++i) pacer.Observe(1 + i % 7, absl::Seconds(1 + i % 7));
  EXPECT_EQ(pacer.max_rows(), 1);
}

TEST(RowPacerTest, OneStepThatTookForeverIsNoNews) {
  RowPacer pacer({.max_rows = 256, .max_step_time = kBound});
  std::mt19937 rng(1);
  const Machine machine{absl::Milliseconds(1), absl::Microseconds(100)};
  Drive(pacer, machine, 1000, rng);
  pacer.Observe(pacer.max_rows(), absl::Seconds(30));
  EXPECT_GE(pacer.max_rows(), 60);
  Drive(pacer, machine, 200, rng);
  EXPECT_NEAR(pacer.max_rows(), 90, 4);
}

}  // namespace
}  // namespace weft
