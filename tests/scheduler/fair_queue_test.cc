#include "scheduler/fair_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tests/fakes/manual_clock.h"
#include "tests/fakes/recording_sink.h"

namespace weft {
namespace {

using Reason = Refusal::Reason;

struct RequestOptions {
  size_t prompt_tokens = 10;
  Priority priority = Priority::kNormal;
  bool score_prompt = false;
  absl::Time deadline = absl::InfiniteFuture();
};

// A queue whose replica takes whatever it is offered.
struct Line {
  explicit Line(const FairQueueOptions& options = {.even_tokens = 0}) : queue(options, clock) {}

  std::shared_ptr<RecordingSink> Push(int64_t id, const std::string& tenant, const RequestOptions& options = {}) {
    auto request = std::make_unique<Request>();
    request->id = id;
    request->tenant = tenant;
    request->prompt.assign(options.prompt_tokens, 1);
    request->priority = options.priority;
    request->sampling.score_prompt = options.score_prompt;
    request->deadline = options.deadline;
    auto sink = std::make_shared<RecordingSink>();
    request->sink = sink;
    auto places = queue.Reserve(tenant, options.priority, 1);
    EXPECT_TRUE(std::holds_alternative<QueuePlaces>(places));
    EXPECT_TRUE(queue.Push(std::get<QueuePlaces>(places), request));
    queue.CheckInvariants();
    return sink;
  }

  std::unique_ptr<Request> Pop() {
    auto request = queue.Pull([](const Request&) { return Verdict::kTake; }).request;
    queue.CheckInvariants();
    return request;
  }

  // Takes one and lets it finish, so that caps on what runs don't matter.
  std::string PopTenant() {
    const auto request = Pop();
    if (request == nullptr) return "";
    queue.Leave(*request->account);
    return request->tenant;
  }

  std::map<std::string, int> PopTenants(int count) {
    std::map<std::string, int> popped;
    for (int i = 0; i < count; ++i) ++popped[PopTenant()];
    return popped;
  }

  void SetPolicy(const std::string& tenant, const TenantPolicy& policy) {
    auto policies = std::make_shared<TenantPolicies>(*queue.policies());
    policies->named[tenant] = policy;
    queue.SetPolicies(std::move(policies));
  }

  std::optional<Reason> RefusalOf(const std::string& tenant, int64_t count = 1) {
    const auto places = queue.Reserve(tenant, Priority::kNormal, count);
    if (std::holds_alternative<QueuePlaces>(places)) return std::nullopt;
    EXPECT_GE(std::get<Refusal>(places).retry_after, absl::Seconds(1));
    EXPECT_LE(std::get<Refusal>(places).retry_after, absl::Minutes(1));
    return std::get<Refusal>(places).reason;
  }

  ManualClock clock;
  FairQueue queue;
};

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

TEST(FairQueueTest, RefusesOneMoreThanItsBound) {
  Line line({.max_requests = 2});
  line.Push(0, "a");
  EXPECT_EQ(line.RefusalOf("a", 2), Reason::kQueueFull);
  line.Push(1, "a");
  EXPECT_EQ(line.RefusalOf("b"), Reason::kQueueFull);
  line.PopTenant();
  EXPECT_EQ(line.RefusalOf("b"), std::nullopt);
}

TEST(FairQueueTest, APlaceThatIsNotUsedComesBack) {
  Line line({.max_requests = 1});
  {
    const auto places = line.queue.Reserve("a", Priority::kNormal, 1);
    EXPECT_EQ(line.RefusalOf("a"), Reason::kQueueFull);
  }
  EXPECT_EQ(line.RefusalOf("a"), std::nullopt);
  line.queue.CheckInvariants();
}

TEST(FairQueueTest, OneTenantAloneFillsHalfOfAQueueThatLeavesRoom) {
  Line line({.max_requests = 16, .leave_room = true});
  int64_t id = 0;
  for (; line.RefusalOf("noisy") == std::nullopt; ++id) line.Push(id, "noisy");
  EXPECT_EQ(id, 8);
  EXPECT_EQ(line.RefusalOf("quiet"), std::nullopt);
}

TEST(FairQueueTest, KeepsATenantsCaps) {
  Line line;
  line.SetPolicy("a", {.max_running = 2, .max_queued = 3});
  for (int64_t id = 0; id < 3; ++id) line.Push(id, "a");
  EXPECT_EQ(line.RefusalOf("a"), Reason::kTenantQueueFull);
  EXPECT_EQ(line.RefusalOf("b"), std::nullopt);
  const auto first = line.Pop();
  const auto second = line.Pop();
  EXPECT_EQ(line.Pop(), nullptr);
  line.queue.Leave(*first->account);
  EXPECT_NE(line.Pop(), nullptr);
}

TEST(FairQueueTest, KeepsATenantsTokensAMinute) {
  Line line;
  line.SetPolicy("a", {.max_tokens_per_minute = 60});
  line.Push(0, "a", {.prompt_tokens = 50});
  line.Push(1, "a", {.prompt_tokens = 50});  // into debt: 40
  EXPECT_EQ(line.RefusalOf("a"), Reason::kTenantRate);
  line.clock.Advance(absl::Seconds(39));
  EXPECT_EQ(line.RefusalOf("a"), Reason::kTenantRate);
  line.clock.Advance(absl::Seconds(2));
  EXPECT_EQ(line.RefusalOf("a"), std::nullopt);
  const auto running = line.Pop();
  line.queue.ChargeDrawn(std::vector<const Request*>(10, running.get()));
  EXPECT_EQ(line.RefusalOf("a"), Reason::kTenantRate);
  line.clock.Advance(-absl::Hours(1));
  EXPECT_EQ(line.RefusalOf("a"), Reason::kTenantRate);
  line.clock.Advance(absl::Minutes(1));
  EXPECT_EQ(line.RefusalOf("a"), std::nullopt)
      << "a clock that jumped back costs no more than what passes from then on";
}

TEST(FairQueueTest, AClockThatJumpsForwardFillsABucketAndNoMore) {
  Line line;
  line.SetPolicy("a", {.max_tokens_per_minute = 60});
  line.Push(0, "a", {.prompt_tokens = 1000});
  EXPECT_EQ(line.RefusalOf("a"), Reason::kTenantRate);
  line.clock.Advance(absl::Hours(1));
  line.Push(1, "a", {.prompt_tokens = 59});
  line.Push(2, "a", {.prompt_tokens = 2});  // into debt: 1
  EXPECT_EQ(line.RefusalOf("a"), Reason::kTenantRate);
  line.clock.Advance(-absl::Hours(1));
  EXPECT_EQ(line.RefusalOf("a"), Reason::kTenantRate);
  line.clock.Advance(absl::Seconds(3));
  EXPECT_EQ(line.RefusalOf("a"), std::nullopt);
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

TEST(FairQueueTest, RefusesWhoseFirstTokenWouldComeTooLate) {
  Line line({.max_time_to_first_token = absl::Seconds(2)});
  for (int64_t id = 0; id < 10; ++id) line.Push(id, "busy", {.prompt_tokens = 1000});
  EXPECT_EQ(line.RefusalOf("busy"), std::nullopt) << "nothing is known of the replicas' speed";
  line.queue.service_rate().Observe(0, {.took = absl::Seconds(1), .num_prompt_tokens = 1000, .num_finished = 5});
  EXPECT_EQ(line.RefusalOf("busy"), Reason::kTooSlow);
  EXPECT_EQ(line.RefusalOf("other"), std::nullopt) << "it has its own share";
  EXPECT_TRUE(line.queue.CheckTimeToFirstToken("other", Priority::kNormal, 10'000).has_value());
  EXPECT_EQ(line.queue.CheckTimeToFirstToken("other", Priority::kNormal, 100), std::nullopt);
  EXPECT_EQ(line.queue.CheckTimeToFirstToken("busy", Priority::kHigh, 100), std::nullopt) << "before all that wait";
}

TEST(FairQueueTest, WhoFindsNobodyBeforeItIsRefusedOnlyForItsOwnLength) {
  struct Case {
    const char* what;
    int num_waiting = 0;
    ServiceRate::Backlog backlog;
    int64_t prompt_tokens = 0;
    bool is_refused = false;
  };
  // 1000 prompt tokens a second, and a sequence ends each ten seconds.
  const Case cases[] = {
      {"free rows", 0, {.has_free_slots = true}, 2000, false},
      {"too long by itself", 0, {.has_free_slots = true}, 2001, true},
      {"all rows taken, but nobody waits", 0, {.has_free_slots = false}, 100, false},
      {"one that waits while rows are free is about to start", 1, {.has_free_slots = true}, 100, false},
      {"one that waits for a row", 1, {.has_free_slots = false}, 100, true},
      {"prompts that wait", 2, {.has_free_slots = true}, 1000, true},
      {"a prompt under way, in its class",
       0,
       {.num_prompts = {0, 1, 0}, .num_prompt_tokens = {0, 9000, 0}},
       1000,
       false},
      {"two of them", 0, {.num_prompts = {0, 2, 0}, .num_prompt_tokens = {0, 9000, 0}}, 1000, true},
      {"short ones", 0, {.num_prompts = {0, 2, 0}, .num_prompt_tokens = {0, 1000, 0}}, 1000, false},
      {"of a higher class", 0, {.num_prompts = {0, 0, 1}, .num_prompt_tokens = {0, 0, 1001}}, 1000, true},
      {"of a lower class", 0, {.num_prompts = {9, 0, 0}, .num_prompt_tokens = {9000, 0, 0}}, 1000, false},
  };
  for (const Case& c : cases) {
    Line line({.max_time_to_first_token = absl::Seconds(2)});
    line.Push(0, "a");
    const auto running = line.Pop();
    for (int64_t id = 1; id <= c.num_waiting; ++id) line.Push(id, "a", {.prompt_tokens = 501});
    line.queue.service_rate().Observe(
        0, {.took = absl::Seconds(10), .num_prompt_tokens = 10'000, .num_finished = 1, .backlog = c.backlog});
    const auto refusal = line.queue.CheckTimeToFirstToken("a", Priority::kNormal, c.prompt_tokens);
    EXPECT_EQ(refusal.has_value(), c.is_refused) << c.what;
    if (refusal.has_value()) {
      EXPECT_EQ(refusal->reason, Reason::kTooSlow);
    }
  }
}

TEST(FairQueueTest, AReplicaThatIsIdleKeepsNobodyOut) {
  Line line({.max_time_to_first_token = absl::Seconds(2)});
  ServiceRate& rate = line.queue.service_rate();
  const auto is_refused = [&] { return line.RefusalOf("b").has_value(); };
  const ServiceRate::Step busy{.took = absl::Seconds(1),
                               .num_prompt_tokens = 1000,
                               .backlog = {.num_prompts = {0, 0, 1}, .num_prompt_tokens = {0, 0, 100'000}}};
  rate.Observe(0, busy);
  EXPECT_TRUE(is_refused());
  line.queue.SetNumReplicas(2);
  EXPECT_FALSE(is_refused()) << "the other has done nothing yet";
  rate.Observe(1, busy);
  EXPECT_TRUE(is_refused());
  rate.ObserveIdle(1);
  EXPECT_FALSE(is_refused());
  rate.Forget(1);
  line.queue.SetNumReplicas(1);
  EXPECT_TRUE(is_refused()) << "it died";
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
