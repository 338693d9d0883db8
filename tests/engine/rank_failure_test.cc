// An engine one of whose ranks fails, in any op of any step: it ends with that rank's error, and all ranks end.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "engine/local_engine.h"
#include "engine/rank_threads.h"
#include "tests/engine/sharded_model.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

constexpr ParallelSizes kSizes{.tensor = 2, .pipeline = 2};

// A group's end where something happens before the op of a certain number.
class FaultyGroup final : public Communicator {
 public:
  using Fault = std::function<void(Communicator& group)>;

  FaultyGroup(std::unique_ptr<Communicator> group, int number, Fault fault)
      : group_(std::move(group)), left_(number), fault_(std::move(fault)) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  void AllReduceSum(Tensor x) override { Next().AllReduceSum(x); }
  void AllGather(Tensor x, Tensor out) override { Next().AllGather(x, out); }
  void Broadcast(Tensor x, int root) override { Next().Broadcast(x, root); }
  void Send(Tensor x, int peer) override { Next().Send(x, peer); }
  void Recv(Tensor x, int peer) override { Next().Recv(x, peer); }
  void Abort(absl::Status status) override { group_->Abort(std::move(status)); }
  absl::Status status() const override { return group_->status(); }
  CommStats stats() const override { return group_->stats(); }
  std::optional<CommWait> waiting() const override { return group_->waiting(); }

 private:
  Communicator& Next() {
    if (left_-- == 0) fault_(*group_);
    return *group_;
  }

  const std::unique_ptr<Communicator> group_;
  int left_;
  const Fault fault_;
};

absl::Status DeviceLost() { return absl::DataLossError("the device of one rank is lost"); }

void LoseDevice(Communicator& group) { group.Abort(DeviceLost()); }

// What never comes.
void WaitForever(Communicator& group) {
  char byte = 0;
  group.Recv(DenseTensor(&byte, DType::kI8, 1, 1), 1 - group.rank());
}

struct FaultyRanks {
  EngineLimits limits;
  std::vector<WorkerParts> parts;
};

// `rank` has the fault at the op of that number with its stage, or with other stages.
FaultyRanks MakeFaultyRanks(size_t rank, bool in_tensor_group, int number, FaultyGroup::Fault fault) {
  const std::string dir = FixtureModel("llama3");
  const ModelConfig config = *LoadModelConfig(dir);
  const EngineSetup setup = SmallSetup(config, {.model_dir = dir, .parallel = kSizes});
  std::vector<RankCommunicators> groups = *OpenCommunicators(kSizes);
  auto& group = in_tensor_group ? groups[rank].tensor_group : groups[rank].stages;
  group = std::make_unique<FaultyGroup>(std::move(group), number, std::move(fault));
  return {*LimitsFor(config, setup, *MakePlans(config, kSizes)), MakeRanks(config, setup, std::move(groups))};
}

Batch Step(int i) { return ScoredChunk({1 + i}, i); }

TEST(RankFailureTest, TheEngineEndsWithTheErrorOfTheRankThatFailed) {
  for (size_t rank = 0; rank < 4; ++rank) {
    for (const bool in_tensor_group : {true, false}) {
      for (const int number : {0, 1, 5}) {
        FaultyRanks ranks = MakeFaultyRanks(rank, in_tensor_group, number, &LoseDevice);
        const std::unique_ptr<Engine> engine = MakeLocalEngine(ranks.limits, std::move(ranks.parts));
        absl::StatusOr<StepResult> result;
        for (int i = 0, collected = 0; collected < 20; ++collected) {
          while (i < 20 && engine->HasRoom()) engine->Submit(Step(i++));
          result = engine->Collect();
          if (!result.ok()) break;
        }
        const absl::Status death = result.status();
        EXPECT_EQ(death.code(), DeviceLost().code()) << death << rank << in_tensor_group << number;
        EXPECT_TRUE(absl::StrContains(death.message(), DeviceLost().message())) << death;
        EXPECT_TRUE(absl::StartsWith(death.message(), "rank ")) << death << ": one that lost it";
        EXPECT_EQ(engine->Collect().status(), death) << "and so does all that was in flight";
        EXPECT_EQ(engine->stats().ranks.size(), 4u) << "it can still be asked";
      }
    }
  }
}

TEST(RankFailureTest, AllRanksEnd) {
  FaultyRanks faulty = MakeFaultyRanks(3, true, 4, &LoseDevice);
  absl::Mutex mutex;
  std::vector<absl::Status> ends(4);
  absl::BlockingCounter running(4);
  RankThreads ranks(std::move(faulty.parts), [&](size_t rank, const Worker&, const absl::StatusOr<StepResult>& result) {
    if (result.ok()) return;
    absl::MutexLock lock(&mutex);
    EXPECT_TRUE(ends[rank].ok()) << "a rank ends once";
    ends[rank] = result.status();
    running.DecrementCount();
  });
  for (int i = 0; i < 20; ++i) ranks.Push(Step(i));
  running.Wait();
  absl::MutexLock lock(&mutex);
  for (const absl::Status& end : ends) EXPECT_EQ(end, DeviceLost());
}

TEST(RankFailureTest, AStepThatHangsEndsTheEngineAndSaysWhoWaitsForWhom) {
  FaultyRanks ranks = MakeFaultyRanks(1, /*in_tensor_group=*/true, 3, &WaitForever);
  const auto engine = MakeLocalEngine(ranks.limits, std::move(ranks.parts), absl::Milliseconds(20));
  engine->Submit(Step(0));
  const absl::Status death = engine->Collect().status();
  EXPECT_EQ(death.code(), absl::StatusCode::kInternal);
  for (const char* const says :
       {"step 0 has taken", "rank 0 waits for member 1 of its tensor group in step 0", "rank 1 waits for", "Recv"}) {
    EXPECT_TRUE(absl::StrContains(death.message(), says)) << death;
  }
}

TEST(RankFailureTest, AnEngineWhoseRanksWaitForeverCanBeDestroyed) {
  for (const bool in_tensor_group : {true, false}) {
    FaultyRanks ranks = MakeFaultyRanks(1, in_tensor_group, 3, &WaitForever);
    const std::unique_ptr<Engine> engine = MakeLocalEngine(ranks.limits, std::move(ranks.parts));
    for (int i = 0; engine->HasRoom(); ++i) engine->Submit(Step(i));
  }
}

}  // namespace
}  // namespace weft
