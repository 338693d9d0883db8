#include "engine/engine_stats.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/rank_recorder.h"
#include "engine/shared_stopwatch.h"
#include "gtest/gtest.h"
#include "tests/engine/open_engine.h"
#include "tests/engine/pipeline_run.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

std::chrono::steady_clock::time_point scripted_now{std::chrono::hours(1)};
std::chrono::steady_clock::time_point ScriptedNow() { return scripted_now; }
void Pass(absl::Duration time) { scripted_now += absl::ToChronoNanoseconds(time); }

// One that has waited as the test says.
class WaitingGroup final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  void AllReduceSum(Tensor) override {}
  void AllGather(Tensor, Tensor) override {}
  void Broadcast(Tensor, int) override {}
  void Send(Tensor, int) override {}
  void Recv(Tensor, int) override {}
  void Abort(absl::Status) override {}
  absl::Status status() const override { return absl::OkStatus(); }
  CommStats stats() const override { return stats_; }
  std::optional<CommWait> waiting() const override { return std::nullopt; }

  void Wait(CommOp op, absl::Duration time) {
    stats_.ops[static_cast<size_t>(op)].waiting += time;
    ++stats_.ops[static_cast<size_t>(op)].calls;
    Pass(time);
  }

 private:
  CommStats stats_;
};

TEST(SharedStopwatchTest, TellsWhatItRanWhileItRunsToo) {
  SharedStopwatch stopwatch(&ScriptedNow);
  EXPECT_EQ(stopwatch.Total(), absl::ZeroDuration());
  stopwatch.Start();
  Pass(absl::Seconds(2));
  EXPECT_EQ(stopwatch.Total(), absl::Seconds(2));
  stopwatch.Stop();
  Pass(absl::Seconds(30));
  EXPECT_EQ(stopwatch.Total(), absl::Seconds(2));
  stopwatch.Start();
  Pass(absl::Nanoseconds(1));
  EXPECT_EQ(stopwatch.Total(), absl::Seconds(2) + absl::Nanoseconds(1));
}

TEST(RankRecorderTest, EveryMomentIsBusyWaitingOrIdle) {
  WaitingGroup tensor_group, stages;
  RankRecorder recorder({.stage = 1, .tp_rank = 0, .weight_bytes = 7}, &tensor_group, &stages, &ScriptedNow);
  Pass(absl::Seconds(100));
  recorder.BeginStep();
  stages.Wait(CommOp::kRecv, absl::Seconds(5));
  Pass(absl::Seconds(3));
  tensor_group.Wait(CommOp::kAllReduceSum, absl::Seconds(1));
  stages.Wait(CommOp::kSend, absl::Seconds(2));
  EXPECT_EQ(recorder.stats().busy, absl::ZeroDuration()) << "a step is told when it ends";
  recorder.EndStep();
  Pass(absl::Seconds(10));
  RankStats stats = recorder.stats();
  EXPECT_EQ(stats.busy, absl::Seconds(3));
  EXPECT_EQ(stats.waiting_in_stage, absl::Seconds(1));
  EXPECT_EQ(stats.waiting_for_stages, absl::Seconds(7));
  EXPECT_EQ(stats.idle, absl::Seconds(110)) << "idle time counts as it passes";
  EXPECT_EQ(stats.in_stage(), absl::Seconds(4));
  EXPECT_EQ(stats.num_steps, 1);
  EXPECT_EQ(stats.stages[CommOp::kRecv].calls, 1);
  EXPECT_EQ(stats.stage, 1);
  EXPECT_EQ(stats.weight_bytes, 7);

  recorder.BeginStep();
  Pass(absl::Seconds(4));
  recorder.EndStep();
  stats = recorder.stats();
  EXPECT_EQ(stats.busy, absl::Seconds(7));
  EXPECT_EQ(stats.busy + stats.waiting_in_stage + stats.waiting_for_stages + stats.idle, absl::Seconds(125));
}

TEST(RankRecorderTest, ExpertsAreSummedOverLayersAndReadNowAndThen) {
  RankRecorder recorder({}, nullptr, nullptr, &ScriptedNow);
  EXPECT_TRUE(recorder.WantsExpertLoad());
  recorder.SetExpertLoad({.here = {.first = 2, .count = 3}, .num_layers = 2, .num_tokens = {1, 2, 3, 10, 20, 30}});
  EXPECT_EQ(recorder.stats().first_expert, 2);
  EXPECT_EQ(recorder.stats().expert_tokens, (std::vector<int64_t>{11, 22, 33}));
  EXPECT_FALSE(recorder.WantsExpertLoad());
  Pass(kExpertLoadPeriod);
  EXPECT_TRUE(recorder.WantsExpertLoad());
}

RankStats AtWork(int stage, int busy_seconds, int waiting_in_stage_seconds = 0) {
  return {
      .stage = stage, .busy = absl::Seconds(busy_seconds), .waiting_in_stage = absl::Seconds(waiting_in_stage_seconds)};
}

TEST(EngineStatsTest, RatiosOfAPeriod) {
  const EngineStats balanced{.with_work = absl::Seconds(10), .ranks = {AtWork(0, 9), AtWork(1, 9)}};
  EXPECT_NEAR(BubbleRatio(balanced), 0.1, 1e-12);
  EXPECT_NEAR(StageImbalance(balanced), 1, 1e-12);
  const EngineStats one_slow{.with_work = absl::Seconds(10), .ranks = {AtWork(0, 10), AtWork(1, 5)}};
  EXPECT_NEAR(BubbleRatio(one_slow), 0.25, 1e-12);
  EXPECT_NEAR(StageImbalance(one_slow), 10 / 7.5, 1e-12);
  const EngineStats tensor_ranks{.with_work = absl::Seconds(10), .ranks = {AtWork(0, 10), AtWork(0, 4, 6)}};
  EXPECT_NEAR(BubbleRatio(tensor_ranks), 0, 1e-12) << "a wait within a stage is no bubble of the pipeline";
  EXPECT_NEAR(StageImbalance(tensor_ranks), 1, 1e-12);
  for (const EngineStats& nothing : {EngineStats{}, EngineStats{.with_work = {}, .ranks = {AtWork(0, 0)}}}) {
    EXPECT_EQ(BubbleRatio(nothing), 0);
    EXPECT_EQ(StageImbalance(nothing), 1);
    EXPECT_EQ(ExpertImbalance(nothing), 1);
  }
}

TEST(EngineStatsTest, ExpertsThatRanksShareCountOnce) {
  // Stage 0 has experts 0, 1 on two ranks that share them, and 2, 3 on one; stage 1 has all on one.
  const EngineStats stats{.with_work = {},
                          .ranks = {{.stage = 0, .first_expert = 0, .expert_tokens = {10, 20}},
                                    {.stage = 0, .first_expert = 0, .expert_tokens = {10, 20}},
                                    {.stage = 0, .first_expert = 2, .expert_tokens = {30, 40}},
                                    {.stage = 1, .first_expert = 0, .expert_tokens = {10, 20, 30, 40}}}};
  EXPECT_NEAR(ExpertImbalance(stats), 80 / 50.0, 1e-12);
}

TEST(EngineStatsTest, AnEngineThatWasOpenedAgainCountsFromZero) {
  EngineStats earlier{.with_work = absl::Seconds(10), .ranks = {AtWork(0, 9)}};
  earlier.ranks[0].expert_tokens = {100};
  EngineStats later{.with_work = absl::Seconds(14), .ranks = {AtWork(0, 12)}};
  later.ranks[0].expert_tokens = {130};
  const EngineStats period = Since(earlier, later);
  EXPECT_EQ(period.with_work, absl::Seconds(4));
  EXPECT_EQ(period.ranks[0].busy, absl::Seconds(3));
  EXPECT_EQ(period.ranks[0].expert_tokens, std::vector<int64_t>{30});
  EXPECT_EQ(Since(later, earlier).with_work, earlier.with_work);
  EXPECT_EQ(Since({}, later).ranks[0].busy, absl::Seconds(12));
}

// With one batch in flight the stages take turns, whatever they cost. That more batches are better is true of every
// machine, but not of every moment of one that does something else.
TEST(EngineStatsTest, OneBatchInFlightLeavesHalfOfTheStagesTime) {
  const PipelineRunOptions options{.hidden_size = 128, .num_layers = 4, .num_sequences = 16, .num_steps = 60};
  PipelineRunOptions one = options;
  one.max_in_flight = 1;
  bool is_better = false;
  for (int attempt = 0; attempt < 20 && !is_better; ++attempt) {
    const PipelineRun full = RunPipeline(options), alone = RunPipeline(one);
    EXPECT_GT(BubbleRatio(alone.stats), 0.45);
    EXPECT_GT(alone.bubble_by_trace, 0.45);
    const auto agree = [](const PipelineRun& run) {
      return std::abs(BubbleRatio(run.stats) - run.bubble_by_trace) < 0.03;
    };
    // What more of them lose, they lose to steps that take unequally long and to others that had the cores, and to
    // little else.
    const double excuse = full.uneven + 2 * full.without_core;
    is_better =
        BubbleRatio(full.stats) < std::min(BubbleRatio(alone.stats), excuse + 0.1) && agree(full) && agree(alone);
  }
  EXPECT_TRUE(is_better);
}

}  // namespace
}  // namespace weft
