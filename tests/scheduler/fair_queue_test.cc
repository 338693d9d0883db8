#include "scheduler/fair_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tests/scheduler/line.h"

namespace weft {
namespace {

TEST(FairQueueTest, ServesOneTenantInOrderOfArrival) {
  Line line;
  for (int64_t id = 0; id < 5; ++id) line.Push(id, "a");
  for (int64_t id = 0; id < 5; ++id) EXPECT_EQ(line.Pop()->id, id);
  EXPECT_EQ(line.Pop(), nullptr);
}

TEST(FairQueueTest, ABurstOfOneTenantDoesNotDelayAnother) {
  Line line;
  for (int64_t id = 0; id < 100; ++id) line.Push(id, "noisy");
  EXPECT_EQ(line.PopTenant(), "noisy");
  line.Push(100, "quiet");
  line.Push(101, "quiet");
  int64_t last_quiet = 0;
  for (int64_t turn = 1; line.queue.size() > 0; ++turn) {
    if (line.PopTenant() == "quiet") last_quiet = turn;
  }
  EXPECT_LE(last_quiet, 4);
}

TEST(FairQueueTest, SharesServiceByTokensNotByRequests) {
  Line line;
  for (int64_t id = 0; id < 300; ++id) {
    line.Push(id, id % 2 == 0 ? "long" : "short", {.prompt_tokens = id % 2 == 0 ? size_t{90} : size_t{30}});
  }
  EXPECT_NEAR(line.PopTenants(100)["short"], 75, 2);
}

TEST(FairQueueTest, SharesServiceByWeight) {
  Line line;
  line.SetPolicy("heavy", {.weight = 4});
  for (int64_t id = 0; id < 400; ++id) line.Push(id, id % 2 == 0 ? "heavy" : "light");
  EXPECT_NEAR(line.PopTenants(100)["heavy"], 80, 2);
}

TEST(FairQueueTest, OfThoseThatAreEvenWhoRunsLessComesFirst) {
  for (const bool is_even : {true, false}) {
    Line line({.even_tokens = 500});
    line.Push(0, "long", {.prompt_tokens = 10});
    const auto running = line.Pop();
    line.Push(1, "long", {.prompt_tokens = 1000});
    line.Push(2, "long", {.prompt_tokens = 1000});
    line.Push(3, "short", {.prompt_tokens = is_even ? size_t{400} : size_t{600}});
    EXPECT_EQ(line.PopTenant(), "short") << "lifted to the counter of the other";
    line.Push(4, "short");
    EXPECT_EQ(line.PopTenant(), is_even ? "short" : "long");
  }
}

TEST(FairQueueTest, FewOvertakeOneThatIsTooLarge) {
  Line line;
  line.Push(0, "a", {.prompt_tokens = 1000});
  for (int64_t id = 1; id < 30; ++id) line.Push(id, "a");
  const auto judge = [](const Request& r) { return r.prompt.size() > 100 ? Verdict::kTooLarge : Verdict::kTake; };
  int num_overtakers = 0;
  while (auto request = line.queue.Pull(judge).request) {
    line.queue.Leave(*request->account);
    ++num_overtakers;
  }
  EXPECT_EQ(num_overtakers, FairQueue::kMaxOvertakers);
  EXPECT_EQ(line.Pop()->id, 0) << "the first, once it fits";
}

// Strict classes serve a tenant at nobody's cost in a lower one.
TEST(FairQueueTest, WhatAHighClassGetsCostsNoTurnInALowerOne) {
  for (const double others_weight : {1.0, 0.001}) {
    Line line;
    line.SetPolicy("other", {.weight = others_weight});
    line.Push(0, "other", {.priority = Priority::kHigh});
    line.PopTenant();
    int64_t id = 1;
    for (; id < 201; ++id) line.Push(id, id % 2 == 0 ? "mixed" : "plain");
    std::map<std::string, int> popped;
    for (int i = 0; i < 100; ++i) {
      if (i % 10 == 0) {
        line.Push(id++, "mixed", {.prompt_tokens = 1, .priority = Priority::kHigh});
        line.PopTenant();
      }
      ++popped[line.PopTenant()];
    }
    EXPECT_NEAR(popped["mixed"], 50, 2) << others_weight;
  }
}

TEST(FairQueueTest, AWeightThatIsRaisedCountsAtOnce) {
  Line line;
  line.SetPolicy("nightly", {.weight = 0.01});
  for (int64_t id = 0; id < 400; ++id) line.Push(id, id % 2 == 0 ? "nightly" : "busy");
  EXPECT_LE(line.PopTenants(50)["nightly"], 2);
  line.SetPolicy("nightly", {});
  EXPECT_NEAR(line.PopTenants(100)["nightly"], 50, 3);
}

TEST(FairQueueTest, AScoredPromptCostsMore) {
  Line line;
  for (int64_t id = 0; id < 200; ++id) line.Push(id, id % 2 == 0 ? "scores" : "plain", {.score_prompt = id % 2 == 0});
  EXPECT_NEAR(line.PopTenants(90)["plain"], 80, 2);
}

TEST(FairQueueTest, CachedPromptTokensCostATenth) {
  Line line;
  for (int64_t id = 0; id < 400; ++id) line.Push(id, id % 2 == 0 ? "cached" : "computed", {.prompt_tokens = 100});
  std::map<std::string, int> popped;
  for (int i = 0; i < 110; ++i) {
    const auto request = line.Pop();
    if (request->tenant == "cached") line.queue.ChargeCached(*request, 100);
    ++popped[request->tenant];
  }
  EXPECT_NEAR(popped["cached"], 100, 2);
}

TEST(FairQueueTest, OutputTokensCountAsService) {
  Line line;
  for (int64_t id = 0; id < 12; ++id) line.Push(id, id % 2 == 0 ? "a" : "b");
  const auto first = line.Pop();
  EXPECT_EQ(first->tenant, "a");
  const std::vector<const Request*> drawn(1000, first.get());
  line.queue.ChargeDrawn(drawn);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(line.PopTenant(), "b");
}

TEST(FairQueueTest, IdlingEarnsNoCredit) {
  Line line;
  line.Push(0, "idle");
  line.PopTenant();
  for (int64_t id = 1; id < 200; ++id) line.Push(id, "busy");
  line.PopTenants(100);
  for (int64_t id = 200; id < 300; ++id) line.Push(id, "idle");
  EXPECT_NEAR(line.PopTenants(20)["idle"], 10, 1);
}

TEST(FairQueueTest, BeingHeldBackByACapEarnsNoCredit) {
  struct Case {
    bool cap_goes = false;  // or one that runs does
    bool some_wait_in_a_lower_class = false;
  };
  for (const auto& [cap_goes, some_wait_in_a_lower_class] :
       {Case{true, false}, {true, true}, {false, false}, {false, true}}) {
    Line line;
    line.SetPolicy("capped", {.max_running = 1});
    for (int64_t id = 0; id < 100; ++id) line.Push(id, "capped");
    const auto running = line.Pop();
    for (int64_t id = 100; id < 300; ++id) line.Push(id, "free");
    if (some_wait_in_a_lower_class) line.Push(300, "parked", {.priority = Priority::kLow});
    EXPECT_EQ(line.PopTenants(100)["free"], 100);
    if (cap_goes) line.SetPolicy("capped", {});
    line.queue.Leave(*running->account);
    for (int64_t id = 301; id < 400; ++id) line.Push(id, "free");
    EXPECT_NEAR(line.PopTenants(20)["capped"], 10, 1) << cap_goes << some_wait_in_a_lower_class;
  }
}

// In its own class it waits, and its counter stands still; that is no credit among those that go before it.
TEST(FairQueueTest, WaitingInALowerClassEarnsNoCredit) {
  Line line;
  line.Push(0, "parked", {.priority = Priority::kLow});
  for (int64_t id = 1; id < 300; ++id) line.Push(id, "busy");
  EXPECT_EQ(line.PopTenants(100)["busy"], 100);
  for (int64_t id = 300; id < 400; ++id) line.Push(id, id % 2 == 0 ? "new" : "parked");
  std::map<std::string, int> popped = line.PopTenants(30);
  EXPECT_NEAR(popped["parked"], 10, 1);
  EXPECT_NEAR(popped["new"], 10, 1) << "nor for others";
}

// Nobody is served at the cost of one that comes later, so all are even then, whoever is parked meanwhile.
TEST(FairQueueTest, WhileOnlyALowerClassWaitsAllAreEven) {
  for (const bool parked_was_pulled : {false, true}) {
    Line line;
    const auto drawn = [&](const Request& request) {
      line.queue.ChargeDrawn(std::vector<const Request*>(1000, &request));
    };
    line.Push(0, "parked", {.priority = Priority::kLow});
    line.Push(1, "parked", {.priority = Priority::kLow});
    line.Push(2, "busy");
    const auto running = line.Pop();
    EXPECT_EQ(running->tenant, "busy");
    drawn(*running);
    if (parked_was_pulled) {
      EXPECT_EQ(line.PopTenant(), "parked");
    }
    int64_t id = 3;
    for (int i = 0; i < 20; ++i) line.Push(id++, "parked");
    for (int i = 0; i < 20; ++i) line.Push(id++, "new");
    for (int i = 0; i < 20; ++i) line.Push(id++, "busy");
    std::map<std::string, int> popped = line.PopTenants(30);
    for (const char* tenant : {"parked", "new", "busy"}) EXPECT_NEAR(popped[tenant], 10, 1) << tenant;
  }
}

TEST(FairQueueTest, AHigherClassGoesFirstWhoeverWasServedLess) {
  Line line;
  for (int64_t id = 0; id < 10; ++id) line.Push(id, "low", {.priority = Priority::kLow});
  for (int64_t id = 10; id < 20; ++id) line.Push(id, "normal");
  for (int64_t id = 20; id < 30; ++id) line.Push(id, "high", {.prompt_tokens = 1000, .priority = Priority::kHigh});
  EXPECT_EQ(line.PopTenants(10)["high"], 10);
  EXPECT_EQ(line.PopTenants(10)["normal"], 10);
  EXPECT_EQ(line.PopTenants(10)["low"], 10);
}

TEST(FairQueueTest, ADeadlineFollowsAClockThatJumps) {
  Line line;
  const absl::Time deadline = line.clock.Now() + absl::Seconds(10);
  line.Push(0, "a");
  const auto late = line.Push(1, "a", {.deadline = deadline});
  const auto nothing_fits = [](const Request&) { return Verdict::kBlocked; };
  line.clock.Advance(-absl::Hours(1));
  EXPECT_EQ(line.queue.Pull(nothing_fits).next_deadline, deadline);
  EXPECT_FALSE(late->finish.has_value());
  line.clock.Advance(absl::Hours(2));
  EXPECT_EQ(line.queue.Pull(nothing_fits).next_deadline, absl::InfiniteFuture());
  EXPECT_EQ(late->finish->status.code(), absl::StatusCode::kDeadlineExceeded) << "behind whoever is too large";
  EXPECT_EQ(line.Pop()->id, 0);
}

TEST(FairQueueTest, ANewPolicyHoldsForWhatAlreadyWaits) {
  Line line;
  for (int64_t id = 0; id < 40; ++id) line.Push(id, id % 2 == 0 ? "a" : "b");
  line.SetPolicy("b", {.max_running = 0});
  EXPECT_EQ(line.PopTenants(20)["a"], 20);
  EXPECT_EQ(line.Pop(), nullptr);
}

TEST(FairQueueTest, WhatIsGivenBackHasItsPlaceAndIsNotChargedAgain) {
  Line line;
  for (int64_t id = 0; id < 4; ++id) line.Push(id, id < 3 ? "a" : "b");
  auto first = line.Pop();
  auto second = line.Pop();
  EXPECT_EQ(second->tenant, "b");
  line.queue.GiveBack(std::move(first));
  line.queue.CheckInvariants();
  EXPECT_EQ(line.Pop()->id, 0);
  EXPECT_EQ(line.Pop()->id, 1);
}

TEST(FairQueueTest, WhoMustWaitForAPrefixHoldsNobodyUp) {
  Line line;
  for (int64_t id = 0; id < 3; ++id) line.Push(id, "a");
  const auto judge = [](const Request& request) { return request.id == 0 ? Verdict::kPass : Verdict::kTake; };
  EXPECT_EQ(line.queue.Pull(judge).request->id, 1);
  EXPECT_EQ(line.queue.Pull(judge).request->id, 2);
  EXPECT_EQ(line.queue.Pull(judge).request, nullptr);
  EXPECT_EQ(line.Pop()->id, 0);
}

TEST(FairQueueTest, OnlyAHigherClassGoesBeforeOneThatBlocks) {
  Line line;
  line.Push(0, "a", {.prompt_tokens = 1000});
  line.Push(1, "b");
  line.Push(2, "b", {.priority = Priority::kLow});
  const auto judge = [](const Request& request) {
    return request.prompt.size() > 100 ? Verdict::kBlocked : Verdict::kTake;
  };
  EXPECT_EQ(line.queue.Pull(judge).request, nullptr);
  line.Push(3, "c", {.priority = Priority::kHigh});
  EXPECT_EQ(line.queue.Pull(judge).request->id, 3) << "a higher class does";
}

TEST(FairQueueTest, CancelTakesOutAWaitingRequestAndEndsIt) {
  Line line;
  const auto sink = line.Push(7, "a");
  EXPECT_TRUE(line.queue.Cancel(7));
  EXPECT_FALSE(line.queue.Cancel(7));
  EXPECT_EQ(sink->finish->reason, FinishReason::kCancelled);
  EXPECT_EQ(line.Pop(), nullptr);
}

TEST(FairQueueTest, WhoeverNobodyWaitsForAnyMoreEndsInTheQueue) {
  Line line;
  const auto cancelled = line.Push(0, "a");
  const auto late = line.Push(1, "a", {.deadline = line.clock.Now() + absl::Seconds(1)});
  const auto given_back = line.Push(2, "b");
  auto request = line.queue.Pull([](const Request& r) { return r.id == 2 ? Verdict::kTake : Verdict::kPass; }).request;
  given_back->cancelled = true;
  line.queue.GiveBack(std::move(request));
  EXPECT_EQ(given_back->finish->reason, FinishReason::kCancelled);
  cancelled->cancelled = true;
  line.clock.Advance(absl::Seconds(1));
  EXPECT_EQ(line.Pop(), nullptr);
  EXPECT_EQ(cancelled->finish->reason, FinishReason::kCancelled);
  EXPECT_EQ(late->finish->status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(FairQueueTest, ClosedTakesNothingNewAndGivesWhatWaits) {
  Line line;
  line.Push(0, "a");
  auto places = line.queue.Reserve("a", Priority::kNormal, 1);
  line.queue.Close();
  EXPECT_EQ(line.RefusalOf("a"), Reason::kClosed);
  auto late = std::make_unique<Request>();
  EXPECT_FALSE(line.queue.Push(std::get<QueuePlaces>(places), late));
  EXPECT_NE(late, nullptr);
  EXPECT_FALSE(line.queue.drained());
  const auto running = line.Pop();
  EXPECT_FALSE(line.queue.drained()) << "it may come back";
  line.queue.Leave(*running->account);
  EXPECT_TRUE(line.queue.drained());
}

TEST(FairQueueTest, FailedItEndsWhatWaitsAndWhatComesBack) {
  Line line;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int64_t id = 0; id < 3; ++id) sinks.push_back(line.Push(id, "a"));
  auto running = line.Pop();
  line.queue.Fail(absl::UnavailableError("gone"));
  line.queue.GiveBack(std::move(running));
  line.queue.CheckInvariants();
  for (const auto& sink : sinks) EXPECT_EQ(sink->finish->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(line.queue.drained());
}

TEST(FairQueueTest, TellsHowFarTenantsAreApart) {
  Line line;
  for (int64_t id = 0; id < 4; ++id) line.Push(id, id % 2 == 0 ? "a" : "b", {.prompt_tokens = 30});
  EXPECT_EQ(line.queue.stats().fairness_gap, 0);
  const auto request = line.Pop();
  const QueueStats stats = line.queue.stats();
  EXPECT_EQ(stats.fairness_gap, 30);
  int64_t running = 0, waiting = 0;
  for (const QueueStats::Tenant& tenant : stats.tenants) {
    running += tenant.num_running;
    waiting += tenant.num_waiting[static_cast<size_t>(Priority::kNormal)];
  }
  EXPECT_EQ(running, 1);
  EXPECT_EQ(waiting, 3);
}

TEST(FairQueueTest, ForgetsTenantsThatSayNothingAnyMore) {
  Line line;
  for (int64_t id = 0; id < 10'000; ++id) {
    line.Push(id, "tenant " + std::to_string(id), {.prompt_tokens = 1});
    line.PopTenant();
  }
  EXPECT_LT(line.queue.num_accounts(), 1000u);
}

}  // namespace
}  // namespace weft
