// Who may wait in the fair queue: bounds, caps, and the time to the first token.
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

}  // namespace
}  // namespace weft
