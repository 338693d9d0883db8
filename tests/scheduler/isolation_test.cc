// What one tenant's load does to another's latency: who takes rows and steps from whom, and, on a modelled machine,
// what comes of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "scheduler/tenant_account.h"
#include "tests/scheduler/line.h"
#include "tests/scheduler/modelled_serving.h"
#include "tests/scheduler/stepped_scheduler.h"

namespace weft {
namespace {

void Charge(TenantAccount& account, double counter) { account.SetCounter(Priority::kNormal, counter); }

// What a tenant left of its share it may take later, and no more than the bound.
TEST(IsolationTest, AShareThatWasNotTakenIsKeptUpToABound) {
  struct Case {
    double max_credit;
    int from, to;  // of the next 100 requests of 10 tokens
  };
  for (const Case& c : {Case{0, 49, 51}, {200, 59, 61}, {400, 69, 71}, {100'000, 100, 100}}) {
    Line line({.even_tokens = 0, .max_credit = c.max_credit});
    line.Push(0, "modest");
    line.PopTenant();
    int64_t id = 1;
    for (; id <= 400; ++id) line.Push(id, "busy");
    EXPECT_EQ(line.PopTenants(300)["busy"], 300);
    for (; id <= 520; ++id) line.Push(id, "modest");
    const int served = line.PopTenants(100)["modest"];
    EXPECT_GE(served, c.from) << c.max_credit;
    EXPECT_LE(served, c.to) << c.max_credit;
  }
}

TEST(IsolationTest, ANewNameBringsNoCredit) {
  Line line({.even_tokens = 0, .max_credit = 100'000});
  for (int64_t id = 0; id < 400; ++id) line.Push(id, "busy");
  line.PopTenants(200);
  for (int64_t id = 400; id < 500; ++id) line.Push(id, "new");
  EXPECT_NEAR(line.PopTenants(100)["new"], 50, 1);
}

// Those that spend credit are far behind; that is no measure for those that come meanwhile.
TEST(IsolationTest, CreditIsNotCountedFromAnothersCredit) {
  Line line({.even_tokens = 0, .max_credit = 200});
  line.Push(0, "one");
  line.PopTenant();
  line.Push(1, "other");
  line.PopTenant();
  int64_t id = 2;
  for (; id < 400; ++id) line.Push(id, "busy");
  line.PopTenants(200);
  for (; id < 450; ++id) line.Push(id, "one");
  EXPECT_EQ(line.PopTenants(10)["one"], 10);
  for (; id < 500; ++id) line.Push(id, "other");
  std::map<std::string, int> popped = line.PopTenants(40);
  EXPECT_NEAR(popped["other"], 24, 2) << "20 of credit, and a third of the rest";
  EXPECT_NEAR(popped["one"], 12, 2);
}

TEST(IsolationTest, WhoWasServedLessTakesMoreThanItsShareOfTheRows) {
  struct Case {
    double served = 0;  // of the tenant that has the rows; its even_tokens are 100
    int64_t rows = 0;   // that the other comes to
  };
  for (const Case& c : {Case{50, 2}, {150, 3}}) {
    TenantAccount greedy, modest;
    greedy.even_tokens = modest.even_tokens = 100;
    SteppedScheduler bench(Limits(64, 4, 4, 16));
    for (int i = 0; i < 4; ++i) bench.Add(Prompt(6, i), 30, {.account = &greedy});
    for (int i = 0; i < 4; ++i) bench.Step();
    Charge(greedy, c.served);
    for (int i = 4; i < 8; ++i) bench.Add(Prompt(6, i), 30, {.account = &modest});
    for (int i = 0; i < 6; ++i) {
      bench.Step();
      std::erase_if(bench.line, [&](const auto& request) { return request->account == &greedy; });
    }
    EXPECT_EQ(modest.num_running, c.rows) << "a tenant keeps a row";
    bench.line.clear();
    bench.RunUntilIdle();
  }
}

TEST(IsolationTest, WhoWasServedMoreTakesNoRow) {
  TenantAccount first, newcomer;
  SteppedScheduler bench(Limits(64, 4, 4, 16));
  for (int i = 0; i < 4; ++i) bench.Add(Prompt(6, i), 30, {.account = &first});
  for (int i = 0; i < 4; ++i) bench.Step();
  Charge(newcomer, 1);
  bench.Add(Prompt(6, 4), 2, {.account = &newcomer});
  for (int i = 0; i < 4; ++i) bench.Step();
  EXPECT_EQ(newcomer.num_running, 0);
  Charge(first, 1);
  for (int i = 0; i < 4; ++i) bench.Step();
  EXPECT_EQ(NumPreemptions(bench.scheduler, PreemptionReason::kFairness), 1) << "as soon as they are even";
  bench.RunUntilIdle();
}

int TokensOf(const Batch& batch, int32_t slot) {
  for (size_t row = 0; row < batch.slots.size(); ++row) {
    if (batch.slots[row] == slot) return batch.row_begin[row + 1] - batch.row_begin[row];
  }
  return 0;
}

TEST(IsolationTest, InAStepThePromptsOfWhoWasServedLessGoFirst) {
  struct Case {
    double served = 0;
    int modest = 0, greedy = 0;  // tokens of a step of 16
  };
  for (const Case& c : {Case{0, 8, 8}, {1, 12, 4}}) {
    TenantAccount greedy, modest;
    Charge(greedy, c.served);
    SteppedScheduler bench(Limits(64, 4, 4, 16));
    bench.Add(Prompt(40, 1), 2, {.account = &greedy});
    bench.Add(Prompt(12, 2), 2, {.account = &modest});
    bench.Pull();
    const Batch& batch = bench.scheduler.Schedule();
    EXPECT_EQ(TokensOf(batch, 0), c.greedy);
    EXPECT_EQ(TokensOf(batch, 1), c.modest);
  }
}

// An engine that does one step after the other: those with many tokens take long.
TEST(IsolationTest, PromptsTakeTheirShareOfTheTimeBesideWhoComesBeforeThem) {
  struct Case {
    double served = 0;  // more than the tenant whose stream it is
    double share = 0.5;
    int from = 0, to = 0;  // of 200 steps, those with prompts
  };
  // A step with prompts takes ten times as long as one without.
  for (const Case& c : {Case{0, 0.5, 190, 200}, {1, 0.5, 14, 22}, {1, 0.1, 1, 4}, {1, 1, 90, 200}}) {
    TenantAccount greedy, modest;
    SteppedScheduler bench(Limits(2000, 4, 2, 16), {.max_prefill_share = c.share});
    bench.Add(Prompt(4, 1), 1000, {.account = &modest});
    for (int i = 0; i < 4; ++i) bench.Step();
    Charge(greedy, c.served);
    bench.Add(Prompt(4000, 2), 1, {.account = &greedy});
    bench.Pull();
    int num_with_prompts = 0;
    std::map<int64_t, absl::Duration> took;  // by step
    for (int i = 0; i < 200; ++i) {
      while (bench.engine.HasRoom()) {
        const Batch& batch = bench.scheduler.Schedule();
        ASSERT_FALSE(batch.empty());
        EXPECT_EQ(TokensOf(batch, 0), 1) << "the stream is in every step";
        num_with_prompts += batch.num_tokens() > 1 ? 1 : 0;
        took[batch.step] = absl::Milliseconds(batch.num_tokens() > 1 ? 10 : 1);
        bench.engine.Submit(batch);
      }
      StepResult result = *bench.engine.Collect();
      result.compute_time = took[result.step];
      ASSERT_TRUE(bench.scheduler.Commit(result).ok());
      bench.Tell();
    }
    EXPECT_GE(num_with_prompts, c.from) << c.served << " " << c.share;
    EXPECT_LE(num_with_prompts, c.to) << c.served << " " << c.share;
  }
}

// Whoever waits for a row waits for the steps in flight; the next is not made longer.
TEST(IsolationTest, WhileRoomIsMadeForOnePromptsThatComeAfterItWait) {
  for (const double served : {0.0, 1.0}) {
    TenantAccount greedy, modest;
    SteppedScheduler bench(Limits(4000, 4, 3, 16));
    bench.Add(Prompt(4, 1), 1000, {.account = &greedy});
    bench.Add(Prompt(4000, 2), 1, {.account = &greedy});
    bench.Add(Prompt(4000, 3), 1, {.account = &greedy});
    for (int i = 0; i < 4; ++i) bench.Step();
    Charge(greedy, served);
    bench.engine.Submit(bench.scheduler.Schedule());
    bench.Add(Prompt(8, 4), 2, {.account = &modest});
    bench.Pull();
    EXPECT_TRUE(bench.scheduler.makes_room());
    EXPECT_EQ(bench.scheduler.Schedule().num_tokens() > 1, served == 0);
  }
}

TEST(IsolationTest, WhoWaitedForARowGetsItAsSoonAsMoreMayRun) {
  SteppedScheduler bench(Limits(4000, 4, 8, 64), {.max_itl = absl::Milliseconds(10)});
  for (int i = 0; i < 8; ++i) bench.Add(Prompt(4, i), i < 4 ? 100 : 3000);
  const auto run = [&bench](int num_steps, absl::Duration took) {
    for (int i = 0; i < num_steps; ++i) {
      bench.Pull();
      while (bench.engine.HasRoom()) bench.engine.Submit(bench.scheduler.Schedule());
      StepResult result = *bench.engine.Collect();
      result.compute_time = took;
      ASSERT_TRUE(bench.scheduler.Commit(result).ok());
      bench.scheduler.CheckInvariants();
      bench.Tell();
    }
  };
  run(200, absl::Milliseconds(50));
  ASSERT_EQ(bench.scheduler.running().size(), 4u);
  const auto late = bench.Add(Prompt(4, 9), 3000);
  run(20, absl::Milliseconds(50));
  EXPECT_FALSE(late->cached.has_value());
  run(100, absl::Milliseconds(1));
  EXPECT_TRUE(late->cached.has_value());
  EXPECT_EQ(bench.scheduler.running().size(), 5u) << "nobody has left";
}

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

struct Tail {
  double ttft = 0, itl = 0;  // p99, ms
  double per_second = 0;     // requests
};

struct Machine {
  int rows = 4;
  double max_prefill_share = 0.5;
};

constexpr absl::Duration kMaxItl = absl::Milliseconds(2);

std::vector<Tail> TailsOf(const std::vector<ModelledLoad>& loads, const Machine& machine,
                          absl::Duration time = absl::Seconds(200)) {
  const EngineLimits limits{2048, 128 * machine.rows, 16, machine.rows, 256, 1500};
  ModelledServing serving(limits, {.max_prefill_share = machine.max_prefill_share, .max_itl = kMaxItl});
  const absl::Time begin = serving.Now();
  const std::vector<ModelledServing::Sinks> all = serving.Run(loads, time);
  std::vector<Tail> tails;
  for (const ModelledServing::Sinks& sinks : all) {
    std::vector<double> ttft, itl;
    for (const auto& sink : sinks) {
      if (sink->due() < begin + absl::Seconds(1)) continue;  // new names have no credit yet
      const std::vector<absl::Time>& times = sink->times();
      ttft.push_back(absl::ToDoubleMilliseconds(times.front() - sink->due()));
      for (size_t i = 1; i < times.size(); ++i) itl.push_back(absl::ToDoubleMilliseconds(times[i] - times[i - 1]));
    }
    const double seconds = absl::ToDoubleSeconds(serving.Now() - begin);
    tails.push_back({Quantile(ttft, .99), Quantile(itl, .99), static_cast<double>(sinks.size()) / seconds});
  }
  return tails;
}

struct Aggression {
  const char* name;
  ModelledLoad aggressor;
  Machine machine;
};
void PrintTo(const Aggression& a, std::ostream* out) { *out << a.name; }

class AggressorTest : public testing::TestWithParam<Aggression> {};

// A victim at a tenth of the capacity beside an aggressor at ten times what the machine can do of its own: p99 TTFT at
// most 1.5 times that alone and a step, p99 ITL at most 1.25 times; and the aggressor gets the rest.
TEST_P(AggressorTest, MovesAVictimsTailByABound) {
  const ModelledLoad victim{"victim", 16, 64, 32};
  const auto& [name, aggressor, machine] = GetParam();
  const Tail alone = TailsOf({victim}, machine).front();
  const double capacity = TailsOf({aggressor}, machine).front().per_second;
  const std::vector<Tail> tails = TailsOf({victim, aggressor}, machine);
  EXPECT_LE(tails[0].ttft, 1.5 * alone.ttft + absl::ToDoubleMilliseconds(kMaxItl));
  EXPECT_LE(tails[0].itl, 1.25 * alone.itl);
  EXPECT_GE(tails[1].per_second, 0.8 * capacity);
}

INSTANTIATE_TEST_SUITE_P(IsolationTest, AggressorTest,
                         testing::Values(Aggression{"requests_like_its_own", {"aggressor", 1600, 64, 32}, {}},
                                         Aggression{"long_prompts", {"aggressor", 110, 1000, 8}, {}},
                                         Aggression{"long_answers", {"aggressor", 200, 16, 500}, {}},
                                         Aggression{
                                             "long_answers_in_many_rows", {"aggressor", 200, 16, 500}, {16, 0.75}}),
                         [](const auto& param) { return std::string(param.param.name); });

// 64 rows would take 4 ms and more.
TEST(IsolationTest, NoMoreRowsRunThanTheBoundLeaves) {
  const Tail tail = TailsOf({{"all", 20, 16, 500}}, {.rows = 64}, absl::Seconds(20)).front();
  EXPECT_LE(tail.itl, absl::ToDoubleMilliseconds(kMaxItl));
  EXPECT_GE(tail.itl, absl::ToDoubleMilliseconds(kMaxItl) / 2) << "and not many fewer";
}

}  // namespace
}  // namespace weft
