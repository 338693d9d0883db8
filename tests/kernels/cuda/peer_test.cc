// Groups of devices that see each other's memory, here threads of one process.
#include <thread>
#include <vector>

#include "tests/kernels/cuda/ops_fixture.h"

namespace weft {
namespace {

class PeerTest : public OpsTest {};

struct Group {
  Group(int size, DType activations) {
    std::vector<std::unique_ptr<Communicator>> host = *OpenGroup(size, 1);
    for (std::unique_ptr<Communicator>& end : host) {
      devices.push_back(*OpenDevice({.kind = DeviceKind::kCuda, .activations = activations}));
      ranks.push_back(devices.back()->GroupOf(std::move(end)));
    }
  }
  void OnEach(const std::function<void(size_t)>& work) {
    std::vector<std::thread> threads;
    for (size_t i = 0; i < ranks.size(); ++i) threads.emplace_back(work, i);
    for (std::thread& thread : threads) thread.join();
  }

  std::vector<std::unique_ptr<Backend>> devices;
  std::vector<std::unique_ptr<Communicator>> ranks;
};

// One shot, two shots, several calls, and what only the host sums: in the order of ranks, rounded once.
TEST_P(PeerTest, SumsInTheOrderOfRanks) {
  for (const int size : {2, 3}) {
    Group group(size, Activations());
    for (const auto& [rows, cols] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 4}, {3, 40}, {2, 7}, {0, 8}, {70, 1024}, {70, 2048}, {1, 4}, {5, 100}}) {
      std::vector<Twin> x;
      std::vector<float> expected(static_cast<size_t>(rows * cols));
      for (int rank = 0; rank < size; ++rank) {
        const auto i = static_cast<size_t>(rank);
        x.push_back(Twin::Random(*group.devices[i], Activations(), rows, cols, static_cast<uint32_t>(i)));
        const std::vector<float> own = x.back().FromDevice();
        for (size_t e = 0; e < own.size(); ++e) expected[e] = rank == 0 ? own[e] : expected[e] + own[e];
      }
      group.OnEach([&](size_t i) { group.ranks[i]->AllReduceSum(x[i].device()); });
      for (float& value : expected) value = Rounded(value, Activations());
      for (const Twin& own : x)
        EXPECT_EQ(own.FromDevice(), expected) << rows << " x " << cols << ", " << size << " ranks";
    }
    for (const auto& rank : group.ranks) {
      EXPECT_TRUE(rank->status().ok()) << rank->status();
      EXPECT_TRUE(rank->CanReplay());
      EXPECT_EQ(rank->stats()[CommOp::kAllReduceSum].calls, 8 - 1) << "but for the one without rows, which is nothing";
    }
  }
}

// What was recorded meets anew each time.
TEST_P(PeerTest, AreRecorded) {
  Group group(2, Activations());
  std::vector<Twin> x;
  for (const auto& device : group.devices) x.push_back(Twin(*device, Activations(), 1, 8, std::vector<float>(8, 1)));
  group.OnEach([&](size_t i) { group.ranks[i]->AllReduceSum(x[i].device()); });
  group.OnEach([&](size_t i) {
    for (int time = 0; time < 3; ++time) {
      group.devices[i]->Replay(0, [&] { group.ranks[i]->AllReduceSum(x[i].device()); });
    }
  });
  for (const Twin& own : x) EXPECT_EQ(own.FromDevice(), std::vector<float>(8, 16));
}

TEST_P(PeerTest, AnAbortEndsWhoWaits) {
  Group group(2, Activations());
  std::vector<Twin> x;
  for (const auto& device : group.devices) x.push_back(Twin(*device, Activations(), 1, 8, std::vector<float>(8, 1)));
  group.OnEach([&](size_t i) { group.ranks[i]->AllReduceSum(x[i].device()); });
  std::thread waiter([&] { group.ranks[0]->AllReduceSum(x[0].device()); });
  group.ranks[0]->Abort(absl::UnavailableError("the other rank is gone"));
  waiter.join();
  EXPECT_EQ(group.ranks[0]->status().code(), absl::StatusCode::kUnavailable);
}

INSTANTIATE_FOR_EACH_DTYPE_AND_ORDER(PeerTest);

}  // namespace
}  // namespace weft
