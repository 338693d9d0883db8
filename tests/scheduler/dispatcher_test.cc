#include "scheduler/dispatcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "scheduler/replica.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/manual_clock.h"
#include "tests/fakes/recording_sink.h"

namespace weft {
namespace {

constexpr int kRows = 2;  // of each replica
const EngineLimits kLimits = {.max_model_len = 64,
                              .num_blocks = 32,
                              .block_size = 4,
                              .max_num_seqs = kRows,
                              .max_num_batched_tokens = 64,
                              .vocab_size = 100};

struct RequestOptions {
  std::string tenant = "a";
  Priority priority = Priority::kNormal;
  std::vector<int32_t> prompt = {1, 2, 3};
  int max_tokens = 20;
  bool shares_prefix = false;
  bool score_prompt = false;
};

// Replicas of one queue without threads: each does something when the test says so.
struct Group {
  explicit Group(int num_replicas, absl::Duration max_affinity_wait = absl::Hours(10),
                 const EngineLimits& limits = kLimits)
      : dispatcher({.num_replicas = num_replicas, .max_affinity_wait = max_affinity_wait}, queue, clock) {
    for (int id = 0; id < num_replicas; ++id) {
      auto engine = std::make_unique<FakeEngine>(limits);
      engines.push_back(engine.get());
      const SchedulerOptions options{.tell_cache_changes = dispatcher.tracks_prefixes()};
      replicas.push_back(std::make_unique<Replica>(id, std::move(engine), options, dispatcher, clock));
    }
  }

  // Its id is its place in `sinks`, and its seed.
  int64_t Push(const RequestOptions& options) {
    auto request = std::make_unique<Request>();
    request->id = static_cast<int64_t>(sinks.size());
    request->tenant = options.tenant;
    request->priority = options.priority;
    request->arrival = clock.Now();
    request->prompt = options.prompt;
    request->stop.max_tokens = options.max_tokens;
    request->sampling.seed = static_cast<uint64_t>(request->id);
    request->sampling.score_prompt = options.score_prompt;
    if (options.shares_prefix) {
      request->prefix_scope = ScopeKey(options.tenant, "", "");
      request->prefix_keys = PrefixKeys(*request->prefix_scope, request->prompt, kLimits.block_size);
    }
    sinks.push_back(std::make_shared<RecordingSink>());
    pushed.push_back(options);
    request->sink = sinks.back();
    auto places = queue.Reserve(options.tenant, options.priority, 1);
    EXPECT_TRUE(queue.Push(std::get<QueuePlaces>(places), request));
    return static_cast<int64_t>(sinks.size()) - 1;
  }

  // Replicas with their rows full, and a step of each in flight.
  void Fill(const RequestOptions& options) {
    for (const auto& replica : replicas) {
      for (int row = 0; row < kRows; ++row) Push(options);
      replica->PullWork();
    }
    for (size_t id = 0; id < replicas.size(); ++id) Turn(id);
    EXPECT_EQ(queue.size(), 0);
  }

  // One turn of the main loop.
  void Turn(size_t id) {
    Replica& replica = *replicas[id];
    if (!replica.status().ok()) return;
    replica.PullWork();
    replica.SubmitSteps();
    if (replica.HasInFlight()) replica.FinishStep();
    replica.Publish();
    replica.scheduler().CheckInvariants();
    queue.CheckInvariants();
  }

  void RunUntilDone() {
    const auto is_done = [this] {
      return std::all_of(sinks.begin(), sinks.end(), [](const auto& sink) { return sink->finish.has_value(); });
    };
    for (int turn = 0; turn < 1000 && !is_done(); ++turn) {
      for (size_t id = 0; id < replicas.size(); ++id) Turn(id);
    }
    EXPECT_TRUE(is_done());
  }

  void Kill(size_t id) {
    engines[id]->Die(absl::InternalError("device lost"));
    Turn(id);
    EXPECT_FALSE(replicas[id]->status().ok());
  }

  bool Runs(size_t id, int64_t request) const {
    const auto& running = replicas[id]->scheduler().running();
    return std::any_of(running.begin(), running.end(), [&](const auto& s) { return s->request->id == request; });
  }

  int64_t NumPreemptions(size_t id) const {
    int64_t sum = 0;
    for (const int64_t count : replicas[id]->scheduler().stats().num_preemptions) sum += count;
    return sum;
  }

  void ExpectItsTokens(int64_t id) const {
    const auto i = static_cast<size_t>(id);
    SamplingParams sampling;
    sampling.seed = static_cast<uint64_t>(id);
    EXPECT_EQ(sinks[i]->tokens,
              FakeEngine::ExpectedTokens(pushed[i].prompt, sampling, kLimits.vocab_size, pushed[i].max_tokens))
        << id;
  }

  ManualClock clock;
  FairQueue queue{{}, clock};
  Dispatcher dispatcher;
  std::vector<FakeEngine*> engines;  // owned by the replicas
  std::vector<std::unique_ptr<Replica>> replicas;
  std::vector<RequestOptions> pushed;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
};

std::vector<int32_t> Sequence(int length) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < length; ++i) tokens.push_back(i);
  return tokens;
}

// Those that fill the replicas, and who is to have one of their rows.
struct Rank {
  const char* why;
  RequestOptions crowd;
  RequestOptions newcomer;
};
const Rank kRanks[] = {
    {"its class is higher", {.tenant = "a", .priority = Priority::kLow}, {.tenant = "a", .priority = Priority::kHigh}},
    {"its tenant runs nothing", {.tenant = "greedy"}, {.tenant = "modest"}},
};

TEST(DispatcherTest, OneOfSeveralFullReplicasMakesRoom) {
  for (const Rank& rank : kRanks) {
    SCOPED_TRACE(rank.why);
    Group group(3);
    group.Fill(rank.crowd);
    const int64_t newcomer = group.Push(rank.newcomer);
    for (const size_t id : {1, 2, 0}) group.replicas[id]->PullWork();
    for (const size_t id : {2, 0, 2, 0}) group.Turn(id);
    EXPECT_EQ(group.NumPreemptions(1), 1) << "it looked first";
    for (int turn = 0; turn < 3; ++turn) group.Turn(1);
    EXPECT_TRUE(group.Runs(1, newcomer));
    group.RunUntilDone();
    EXPECT_EQ(group.NumPreemptions(0) + group.NumPreemptions(1) + group.NumPreemptions(2), 1);
    for (int64_t id = 0; id <= newcomer; ++id) group.ExpectItsTokens(id);
  }
}

TEST(DispatcherTest, AnotherReplicaMakesRoomWhereTheFirstCannotAnyMore) {
  struct Case {
    const char* what;
    void (*happens)(Group&);
  };
  const Case cases[] = {
      {"it died", [](Group& group) { group.Kill(1); }},
      {"its step takes too long", [](Group& group) { group.clock.Advance(absl::Seconds(2)); }},
      {"the clock jumped back", [](Group& group) { group.clock.Advance(-absl::Hours(1)); }},
      {"the clock jumped forward", [](Group& group) { group.clock.Advance(absl::Hours(1)); }},
  };
  for (const Rank& rank : kRanks) {
    for (const Case& c : cases) {
      SCOPED_TRACE(std::string(rank.why) + ", " + c.what);
      Group group(3);
      group.Fill(rank.crowd);
      const int64_t newcomer = group.Push(rank.newcomer);
      for (const size_t id : {1, 2, 0}) group.replicas[id]->PullWork();
      c.happens(group);
      for (const size_t id : {2, 0, 2, 0, 2, 0}) group.Turn(id);
      EXPECT_EQ(group.NumPreemptions(2) + group.NumPreemptions(0), 1);
      EXPECT_TRUE(group.Runs(2, newcomer) || group.Runs(0, newcomer));
      group.RunUntilDone();
      for (int64_t id = 0; id <= newcomer; ++id) group.ExpectItsTokens(id);
    }
  }
}

TEST(DispatcherTest, RoomMadeForWhoeverLeftIsUsedAndStandsInNobodysWay) {
  for (const Rank& rank : kRanks) {
    SCOPED_TRACE(rank.why);
    Group group(2);
    group.Fill(rank.crowd);
    const auto gone = static_cast<size_t>(group.Push(rank.newcomer));
    group.replicas[1]->PullWork();
    group.replicas[0]->PullWork();
    EXPECT_EQ(group.NumPreemptions(0), 0);
    group.sinks[gone]->cancelled = true;
    EXPECT_TRUE(group.queue.Cancel(static_cast<int64_t>(gone)));
    const int64_t next = group.Push(rank.newcomer);
    group.replicas[0]->PullWork();
    EXPECT_EQ(group.NumPreemptions(0), 1) << "the room of replica 1 was not made for this one";
    for (int turn = 0; turn < 3; ++turn) group.Turn(0);
    EXPECT_TRUE(group.Runs(0, next));
    for (int turn = 0; turn < 3; ++turn) group.Turn(1);
    EXPECT_EQ(group.replicas[1]->scheduler().running().size(), size_t{kRows});
    group.RunUntilDone();
    EXPECT_EQ(group.NumPreemptions(0) + group.NumPreemptions(1), 2);
    for (int64_t id = 0; id < static_cast<int64_t>(gone); ++id) group.ExpectItsTokens(id);
    group.ExpectItsTokens(next);
  }
}

// Replica 0 has computed a prompt.
struct WarmGroup : Group {
  WarmGroup() : Group(2) {
    Push({.prompt = Sequence(13), .max_tokens = 2, .shares_prefix = true});
    replicas[0]->PullWork();
    RunUntilDone();
  }
};

// After eight have overtaken it one replica keeps its blocks for it, and the others go on.
TEST(DispatcherTest, ALargeRequestHoldsUpOneReplicaAtMost) {
  EngineLimits limits = kLimits;
  limits.num_blocks = 18;
  limits.max_num_seqs = 4;
  Group group(2, absl::Hours(10), limits);
  for (size_t id = 0; id < 2; ++id) {
    group.Push({.tenant = "stream", .prompt = Sequence(20), .max_tokens = 40});
    group.Turn(id);
  }
  const int64_t large = group.Push({.tenant = "stream", .prompt = Sequence(58), .max_tokens = 4});
  for (int i = 0; i < 200; ++i) group.Push({.tenant = "small", .max_tokens = 2});
  const auto num_finished = [&group] {
    return std::count_if(group.sinks.begin(), group.sinks.end(), [](const auto& s) { return s->finish.has_value(); });
  };
  for (int round = 0; round < 30; ++round) {
    for (size_t id = 0; id < 2; ++id) group.Turn(id);
  }
  EXPECT_FALSE(group.sinks[static_cast<size_t>(large)]->finish.has_value()) << "the streams hold too much";
  EXPECT_GE(num_finished(), 25) << "one replica goes on";
  group.RunUntilDone();
  group.ExpectItsTokens(large);
}

TEST(DispatcherTest, ARequestWaitsAMomentForTheReplicaWithItsPrefix) {
  WarmGroup group;
  const int64_t id = group.Push({.prompt = Sequence(17), .shares_prefix = true});
  group.replicas[1]->PullWork();
  EXPECT_FALSE(group.replicas[1]->HasWork());
  EXPECT_LT(group.replicas[1]->look_again(), absl::InfiniteFuture());
  group.replicas[0]->PullWork();
  EXPECT_TRUE(group.Runs(0, id));
  group.RunUntilDone();
  EXPECT_EQ(group.sinks.back()->cached, 12);
}

TEST(DispatcherTest, ARequestStopsWaitingForAPrefixWhenTheClockJumps) {
  for (const absl::Duration jump : {absl::Hours(-1), absl::Hours(11)}) {
    WarmGroup group;
    const int64_t id = group.Push({.prompt = Sequence(17), .shares_prefix = true});
    group.replicas[1]->PullWork();
    EXPECT_FALSE(group.replicas[1]->HasWork());
    group.clock.Advance(jump);
    group.replicas[1]->PullWork();
    EXPECT_TRUE(group.Runs(1, id)) << jump;
    group.RunUntilDone();
    group.ExpectItsTokens(id);
  }
}

// All of it is computed, wherever that is.
TEST(DispatcherTest, AScoredPromptWaitsForNobodysPrefix) {
  for (const size_t replica : {0, 1}) {
    WarmGroup group;
    const int64_t id = group.Push({.prompt = Sequence(17), .shares_prefix = true, .score_prompt = true});
    group.replicas[replica]->PullWork();
    EXPECT_TRUE(group.Runs(replica, id));
    group.RunUntilDone();
    EXPECT_EQ(group.sinks.back()->cached, 0);
    EXPECT_EQ(group.sinks.back()->scores.size(), 16u);
    group.ExpectItsTokens(id);
  }
}

TEST(DispatcherTest, WhatAReplicaRanThatDiedInADrainGoesOnElsewhere) {
  Group group(2);
  for (int i = 0; i < 3; ++i) group.Push({});
  group.Turn(0);
  group.queue.Close();
  group.Turn(1);
  EXPECT_EQ(group.queue.size(), 0);
  EXPECT_TRUE(group.Runs(1, 2));
  group.Kill(0);
  EXPECT_FALSE(group.queue.drained());
  group.RunUntilDone();
  EXPECT_TRUE(group.queue.drained());
  for (int64_t id = 0; id < 3; ++id) group.ExpectItsTokens(id);
}

// An idle replica has to stay: all that is left may come back from another.
TEST(DispatcherTest, ADrainIsNotOverWhileSomethingRunsAnywhere) {
  Group group(2);
  group.Push({});
  group.Turn(0);
  group.queue.Close();
  group.Turn(1);
  EXPECT_FALSE(group.replicas[1]->HasWork());
  EXPECT_FALSE(group.queue.drained());
  group.Kill(0);
  EXPECT_TRUE(group.replicas[1]->HasNews());
  group.RunUntilDone();
  EXPECT_TRUE(group.queue.drained());
  group.ExpectItsTokens(0);
}

TEST(DispatcherTest, WhenTheLastReplicaDiesInADrainEachRequestEndsInOneError) {
  Group group(2);
  for (int i = 0; i < 6; ++i) group.Push({});
  group.Turn(0);
  group.queue.Close();
  group.Kill(0);
  group.Kill(1);  // as soon as it has a suspect
  EXPECT_FALSE(group.queue.drained());
  group.queue.Fail(absl::UnavailableError("nobody is left"));
  EXPECT_TRUE(group.queue.drained());
  group.queue.CheckInvariants();
  int num_quarantined = 0;
  for (const auto& sink : group.sinks) {
    ASSERT_TRUE(sink->finish.has_value());
    EXPECT_EQ(sink->finish->reason, FinishReason::kError);
    if (IsQuarantined(sink->finish->status)) {
      ++num_quarantined;
    } else {
      EXPECT_EQ(sink->finish->status.message(), "nobody is left");
    }
  }
  EXPECT_EQ(num_quarantined, 1);
}

}  // namespace
}  // namespace weft
