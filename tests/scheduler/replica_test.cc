#include "scheduler/replica.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <variant>
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

std::vector<int32_t> PromptOf(int64_t id) { return {1, 2, 3, static_cast<int32_t>(id % 100)}; }

struct PushOptions {
  bool shares_prefix = false;
  std::vector<int32_t> stops;
};

std::shared_ptr<RecordingSink> Push(FairQueue& queue, int64_t id, int max_tokens, const PushOptions& options = {}) {
  auto request = std::make_unique<Request>();
  request->id = id;
  request->tenant = "a";
  request->arrival = absl::Now();
  request->prompt = PromptOf(id);
  request->stop = {max_tokens, options.stops};
  request->sampling.seed = static_cast<uint64_t>(id);
  if (options.shares_prefix) {
    request->prefix_scope = ScopeKey("a", "", "");
    request->prefix_keys = PrefixKeys(*request->prefix_scope, request->prompt, kLimits.block_size);
  }
  auto sink = std::make_shared<RecordingSink>();
  request->sink = sink;
  auto places = queue.Reserve("a", Priority::kNormal, 1);
  EXPECT_TRUE(queue.Push(std::get<QueuePlaces>(places), request));
  return sink;
}

std::vector<int32_t> Expected(int64_t id, int count) {
  SamplingParams sampling;
  sampling.seed = static_cast<uint64_t>(id);
  return FakeEngine::ExpectedTokens(PromptOf(id), sampling, kLimits.vocab_size, count);
}

// Replicas of one queue, each with its thread.
struct Group {
  explicit Group(int num_replicas, const EngineLimits& limits = kLimits)
      : dispatcher({.num_replicas = num_replicas}, queue, clock) {
    for (int id = 0; id < num_replicas; ++id) {
      auto engine = std::make_unique<FakeEngine>(limits);
      engines.push_back(engine.get());
      const SchedulerOptions options{.tell_cache_changes = dispatcher.tracks_prefixes()};
      replicas.push_back(std::make_unique<Replica>(id, std::move(engine), options, dispatcher, clock));
    }
  }
  ~Group() { Finish(); }

  void Start() {
    for (auto& replica : replicas) replica->Start();
  }
  void Finish() {
    queue.Close();
    for (auto& replica : replicas) replica->Join();
  }

  SystemClock clock;
  FairQueue queue{{}, clock};
  Dispatcher dispatcher;
  std::vector<FakeEngine*> engines;  // owned by the replicas
  std::vector<std::unique_ptr<Replica>> replicas;
};

TEST(ReplicaTest, RunsWhatArrivesWhileItRunsAndDrainsOnClose) {
  for (const int num_replicas : {1, 3}) {
    Group group(num_replicas);
    group.Start();
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int64_t id = 0; id < 200; ++id) sinks.push_back(Push(group.queue, id, 10, {.shares_prefix = id % 2 == 0}));
    group.Finish();
    for (size_t id = 0; id < sinks.size(); ++id) {
      EXPECT_EQ(sinks[id]->tokens, Expected(static_cast<int64_t>(id), 10)) << id;
    }
    for (const auto& replica : group.replicas) {
      EXPECT_EQ(replica->stats().num_free_blocks, kLimits.num_blocks);
      EXPECT_TRUE(replica->status().ok());
    }
    group.queue.CheckInvariants();
  }
}

// The last that runs may end while blocks are short: what waits must still be able to start.
TEST(ReplicaTest, AShortageOfBlocksEndsWithWhoeverWasShort) {
  EngineLimits limits = kLimits;
  for (limits.num_blocks = 4; limits.num_blocks < 12; ++limits.num_blocks) {
    Group group(1, limits);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int64_t id = 0; id < 200; ++id) sinks.push_back(Push(group.queue, id, 12, {.stops = {1, 2, 3, 4, 5, 6}}));
    group.Start();
    group.Finish();
    for (const auto& sink : sinks) EXPECT_TRUE(sink->finish.has_value());
  }
}

TEST(ReplicaTest, WakesFromIdle) {
  Group group(1);
  group.Start();
  for (int64_t id = 0; id < 3; ++id) Push(group.queue, id, 2)->finished.WaitForNotification();
  group.Finish();
  EXPECT_EQ(group.replicas[0]->stats().num_tokens_sampled, 6);
}

TEST(ReplicaTest, WhatADeadReplicaRanGoesOnElsewhere) {
  Group group(2);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int64_t id = 0; id < 50; ++id) sinks.push_back(Push(group.queue, id, 20));
  group.engines[0]->DieAfter(7, absl::UnavailableError("device lost"));
  group.replicas[0]->Start();
  group.replicas[0]->Join();
  group.replicas[1]->Start();
  group.Finish();
  EXPECT_EQ(group.replicas[0]->status().message(), "device lost");
  EXPECT_TRUE(group.replicas[1]->status().ok());
  for (size_t id = 0; id < sinks.size(); ++id) {
    EXPECT_EQ(sinks[id]->finish->reason, FinishReason::kLength);
    EXPECT_EQ(sinks[id]->tokens, Expected(static_cast<int64_t>(id), 20)) << id;
  }
}

TEST(ReplicaTest, ARequestThatKillsTwoReplicasIsQuarantinedAlone) {
  Group group(3);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int64_t id = 0; id < 12; ++id) sinks.push_back(Push(group.queue, id, 20));
  for (FakeEngine* engine : group.engines) engine->DieOfSeed(5);
  group.Start();
  group.Finish();
  int num_dead = 0;
  for (const auto& replica : group.replicas) num_dead += replica->status().ok() ? 0 : 1;
  EXPECT_EQ(num_dead, 2);
  for (size_t id = 0; id < sinks.size(); ++id) {
    if (id == 5) {
      EXPECT_EQ(sinks[id]->finish->reason, FinishReason::kError);
    } else {
      EXPECT_EQ(sinks[id]->tokens, Expected(static_cast<int64_t>(id), 20)) << id;
    }
  }
}

// As the system does when a request makes its worker take too much memory.
TEST(ReplicaTest, ARequestWithWhichReplicasAreKilledAgainAndAgainIsQuarantinedAlone) {
  Group group(Dispatcher::kMaxKills + 3);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int64_t id = 0; id < 12; ++id) sinks.push_back(Push(group.queue, id, 20));
  for (FakeEngine* engine : group.engines) engine->DieOfSeed(5, absl::UnavailableError("killed"));
  group.Start();
  group.Finish();
  const auto num_dead = std::count_if(group.replicas.begin(), group.replicas.end(),
                                      [](const auto& replica) { return !replica->status().ok(); });
  EXPECT_EQ(num_dead, Dispatcher::kMaxKills + 2);
  for (size_t id = 0; id < sinks.size(); ++id) {
    if (id == 5) {
      EXPECT_TRUE(IsQuarantined(sinks[id]->finish->status));
    } else {
      EXPECT_EQ(sinks[id]->tokens, Expected(static_cast<int64_t>(id), 20)) << id;
    }
  }
}

TEST(ReplicaTest, WhenNoReplicaIsLeftEverythingEnds) {
  Group group(1);
  group.engines[0]->DieAfter(3, absl::UnavailableError("device lost"));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int64_t id = 0; id < 10; ++id) sinks.push_back(Push(group.queue, id, 10));
  group.Start();
  group.replicas[0]->Join();
  group.queue.Fail(absl::UnavailableError("nobody is left"));
  for (const auto& sink : sinks) EXPECT_EQ(sink->finish->status.message(), "nobody is left");
}

}  // namespace
}  // namespace weft
