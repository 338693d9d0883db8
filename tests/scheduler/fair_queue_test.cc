#include "scheduler/fair_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "tests/fakes/recording_sink.h"

namespace weft {
namespace {

std::unique_ptr<Request> MakeRequest(int64_t id, const std::string& tenant, size_t prompt_tokens = 10) {
  auto request = std::make_unique<Request>();
  request->id = id;
  request->tenant = tenant;
  request->prompt.assign(prompt_tokens, 1);
  request->sink = std::make_shared<RecordingSink>();
  return request;
}

void Push(FairQueue& queue, std::unique_ptr<Request> request) { ASSERT_TRUE(queue.Push(request).ok()); }

TEST(FairQueueTest, ServesOneTenantInOrderOfArrival) {
  FairQueue queue({});
  for (int64_t id = 0; id < 5; ++id) Push(queue, MakeRequest(id, "a"));
  for (int64_t id = 0; id < 5; ++id) EXPECT_EQ(queue.TryPop()->id, id);
  EXPECT_EQ(queue.TryPop(), nullptr);
}

TEST(FairQueueTest, ABurstOfOneTenantDoesNotDelayAnother) {
  FairQueue queue({});
  for (int64_t id = 0; id < 100; ++id) Push(queue, MakeRequest(id, "noisy"));
  EXPECT_EQ(queue.TryPop()->tenant, "noisy");
  Push(queue, MakeRequest(100, "quiet"));
  Push(queue, MakeRequest(101, "quiet"));
  int64_t last_quiet = 0;
  for (int64_t turn = 1; queue.size() > 0; ++turn) {
    if (queue.TryPop()->tenant == "quiet") last_quiet = turn;
  }
  EXPECT_LE(last_quiet, 4);
}

TEST(FairQueueTest, SharesServiceByTokensNotByRequests) {
  FairQueue queue({});
  for (int64_t id = 0; id < 300; ++id)
    Push(queue, MakeRequest(id, id % 2 == 0 ? "long" : "short", id % 2 == 0 ? 90 : 30));
  std::map<std::string, int> popped;
  for (int i = 0; i < 100; ++i) ++popped[queue.TryPop()->tenant];
  EXPECT_NEAR(popped["short"], 75, 2);
}

TEST(FairQueueTest, AScoredPromptCostsMore) {
  FairQueue queue({});
  for (int64_t id = 0; id < 200; ++id) {
    auto request = MakeRequest(id, id % 2 == 0 ? "scores" : "plain");
    request->sampling.score_prompt = id % 2 == 0;
    Push(queue, std::move(request));
  }
  std::map<std::string, int> popped;
  for (int i = 0; i < 90; ++i) ++popped[queue.TryPop()->tenant];
  EXPECT_NEAR(popped["plain"], 80, 2);
}

TEST(FairQueueTest, CachedPromptTokensCostATenth) {
  FairQueue queue({});
  for (int64_t id = 0; id < 400; ++id) Push(queue, MakeRequest(id, id % 2 == 0 ? "cached" : "computed", 100));
  std::map<std::string, int> popped;
  for (int i = 0; i < 110; ++i) {
    const std::string tenant = queue.TryPop()->tenant;
    if (tenant == "cached") queue.RefundCached(tenant, 100);
    ++popped[tenant];
  }
  EXPECT_NEAR(popped["cached"], 100, 2);
}

TEST(FairQueueTest, OutputTokensCountAsService) {
  FairQueue queue({});
  for (int64_t id = 0; id < 10; ++id) Push(queue, MakeRequest(id, id % 2 == 0 ? "a" : "b"));
  queue.ChargeOutput("a", 1000);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(queue.TryPop()->tenant, "b");
}

TEST(FairQueueTest, IdlingEarnsNoCredit) {
  FairQueue queue({});
  Push(queue, MakeRequest(0, "idle"));
  queue.TryPop();
  for (int64_t id = 1; id < 200; ++id) Push(queue, MakeRequest(id, "busy"));
  for (int i = 0; i < 100; ++i) queue.TryPop();
  for (int64_t id = 200; id < 300; ++id) Push(queue, MakeRequest(id, "idle"));
  int idle = 0;
  for (int i = 0; i < 20; ++i) idle += queue.TryPop()->tenant == "idle" ? 1 : 0;
  EXPECT_NEAR(idle, 10, 1);
}

TEST(FairQueueTest, RefusesOneMoreThanItsBoundAndLeavesTheRequest) {
  FairQueue queue({.max_requests = 2});
  Push(queue, MakeRequest(0, "a"));
  Push(queue, MakeRequest(1, "a"));
  auto third = MakeRequest(2, "a");
  EXPECT_EQ(queue.Push(third).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(third, nullptr);
  queue.TryPop();
  EXPECT_TRUE(queue.Push(third).ok());
}

TEST(FairQueueTest, CancelTakesOutAWaitingRequestAndEndsIt) {
  FairQueue queue({});
  auto request = MakeRequest(7, "a");
  const auto sink = std::static_pointer_cast<RecordingSink>(request->sink);
  Push(queue, std::move(request));
  EXPECT_TRUE(queue.Cancel(7));
  EXPECT_FALSE(queue.Cancel(7));
  EXPECT_EQ(sink->finish->reason, FinishReason::kCancelled);
  EXPECT_EQ(queue.TryPop(), nullptr);
}

TEST(FairQueueTest, ClosedTakesNothingNewAndGivesWhatWaits) {
  FairQueue queue({});
  Push(queue, MakeRequest(0, "a"));
  queue.Close();
  queue.WaitForWork();
  auto late = MakeRequest(1, "a");
  EXPECT_EQ(queue.Push(late).code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(queue.TryPop(), nullptr);
}

}  // namespace
}  // namespace weft
