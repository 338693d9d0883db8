#include "scheduler/replica.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/fake_engine.h"
#include "tests/fakes/recording_sink.h"

namespace weft {
namespace {

const EngineLimits kLimits = {.max_model_len = 64,
                              .num_blocks = 32,
                              .block_size = 4,
                              .max_num_seqs = 4,
                              .max_num_batched_tokens = 16,
                              .vocab_size = 100};

std::shared_ptr<RecordingSink> Push(FairQueue& queue, int64_t id, int max_tokens) {
  auto request = std::make_unique<Request>();
  request->id = id;
  request->tenant = "a";
  request->arrival = absl::Now();
  request->prompt = {1, 2, 3, static_cast<int32_t>(id % 100)};
  request->stop.max_tokens = max_tokens;
  auto sink = std::make_shared<RecordingSink>();
  request->sink = sink;
  EXPECT_TRUE(queue.Push(request).ok());
  return sink;
}

TEST(ReplicaTest, RunsWhatArrivesWhileItRunsAndDrainsOnClose) {
  SystemClock clock;
  FairQueue queue({});
  Replica replica(std::make_unique<FakeEngine>(kLimits), queue, clock);
  replica.Start();
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int64_t id = 0; id < 200; ++id) sinks.push_back(Push(queue, id, 10));
  queue.Close();
  replica.Join();
  for (size_t id = 0; id < sinks.size(); ++id) {
    const std::vector<int32_t> prompt = {1, 2, 3, static_cast<int32_t>(id % 100)};
    EXPECT_EQ(sinks[id]->tokens, FakeEngine::ExpectedTokens(prompt, {}, 100, 10)) << id;
  }
  EXPECT_EQ(replica.stats().num_free_blocks, kLimits.num_blocks);
  EXPECT_TRUE(replica.status().ok());
}

TEST(ReplicaTest, WakesFromIdle) {
  SystemClock clock;
  FairQueue queue({});
  Replica replica(std::make_unique<FakeEngine>(kLimits), queue, clock);
  replica.Start();
  for (int64_t id = 0; id < 3; ++id) Push(queue, id, 2)->finished.WaitForNotification();
  queue.Close();
  replica.Join();
  EXPECT_EQ(replica.stats().num_tokens_sampled, 6);
}

TEST(ReplicaTest, AnEngineThatDiesEndsItsRequestsInThatError) {
  SystemClock clock;
  FairQueue queue({});
  auto engine = std::make_unique<FakeEngine>(kLimits);
  engine->Die(absl::UnavailableError("device lost"));
  Replica replica(std::move(engine), queue, clock);
  const auto sink = Push(queue, 0, 10);
  replica.Start();
  replica.Join();
  EXPECT_EQ(sink->finish->reason, FinishReason::kError);
  EXPECT_EQ(replica.status().message(), "device lost");
}

}  // namespace
}  // namespace weft
