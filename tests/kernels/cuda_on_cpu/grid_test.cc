// The grid that runs kernels on the CPU sees what it is there for.
#include "tests/kernels/cuda_on_cpu/grid.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace weft::cuda {
namespace {

using ::testing::HasSubstr;

constexpr unsigned kAll = 0xffffffffu;

TEST(GridTest, RunsEveryThreadOfEveryBlockOnce) {
  std::vector<int> runs(2 * 3 * 2 * 8 * 4 * 2);
  const auto thread = [&] {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned index = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    ++runs[block * 64 + index];
  };
  EXPECT_EQ(RunGrid({dim3(2, 3, 2), dim3(8, 4, 2)}, thread), "");
  EXPECT_EQ(std::count(runs.begin(), runs.end(), 1), static_cast<int64_t>(runs.size()));
}

TEST(GridTest, ABarrierThatNotAllReachIsADeadlock) {
  const auto thread = [] {
    if (threadIdx.x != 5) __syncthreads();
    if (threadIdx.x == 5) {
      while (true) __syncwarp();
    }
  };
  EXPECT_THAT(RunGrid({dim3(1), dim3(64)}, thread), HasSubstr("deadlock"));
}

TEST(GridTest, BarriersAtTwoPlacesAreADeadlock) {
  const auto thread = [] {
    if (threadIdx.x % 2 == 0) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  };
  EXPECT_THAT(RunGrid({dim3(1), dim3(64)}, thread),
              HasSubstr("deadlock in block 0, 0, 0: from thread 0 on at the barrier"));
}

TEST(GridTest, ThreadsThatHaveEndedAreNotWaitedFor) {
  int sum = 0;
  const auto thread = [&] {
    if (threadIdx.x >= 32) return;
    __syncthreads();
    ++sum;
  };
  EXPECT_EQ(RunGrid({dim3(1), dim3(64)}, thread), "");
  EXPECT_EQ(sum, 32);
}

TEST(GridTest, AWarpOpWithoutALaneOfItsMaskIsADeadlock) {
  const auto thread = [] {
    if (threadIdx.x < 31) (void)__shfl_xor_sync(kAll, threadIdx.x, 1);
  };
  EXPECT_THAT(RunGrid({dim3(1), dim3(32)}, thread), HasSubstr("warp op"));
  const auto not_in_its_mask = [] { (void)__shfl_sync(0xfu, threadIdx.x, 0); };
  EXPECT_THAT(RunGrid({dim3(1), dim3(32)}, not_in_its_mask), HasSubstr("from thread 4 on"));
}

TEST(GridTest, WarpOpsExchangeWhatTheyShould) {
  std::vector<unsigned> xors(64), downs(64), ups(64), broadcasts(64), votes(64);
  const auto thread = [&] {
    const unsigned i = threadIdx.x, lane = i % 32;
    xors[i] = __shfl_xor_sync(kAll, i, 3);
    downs[i] = __shfl_down_sync(kAll, i, 4);
    ups[i] = __shfl_up_sync(kAll, i, 4);
    broadcasts[i] = __shfl_sync(kAll, i, 7);
    votes[i] = __ballot_sync(kAll, lane % 5 == 0);
  };
  ASSERT_EQ(RunGrid({dim3(1), dim3(64)}, thread), "");
  for (unsigned i = 0; i < 64; ++i) {
    EXPECT_EQ(xors[i], i ^ 3);
    EXPECT_EQ(downs[i], i % 32 < 28 ? i + 4 : i);
    EXPECT_EQ(ups[i], i % 32 >= 4 ? i - 4 : i);
    EXPECT_EQ(broadcasts[i], i / 32 * 32 + 7);
    EXPECT_EQ(votes[i], 0x42108421u);
  }
}

TEST(GridTest, RefusesWhatNoDeviceTakes) {
  const auto thread = [] {};
  EXPECT_NE(RunGrid({dim3(1), dim3(1025)}, thread), "");
  EXPECT_NE(RunGrid({dim3(1, 65536), dim3(1)}, thread), "");
  EXPECT_NE(RunGrid({dim3(1), dim3(1), (48 << 10) + 1}, thread), "");
}

TEST(GridTest, SharedMemoryBeginsAsPoisonInEachBlock) {
  int num_poisoned = 0;
  const auto thread = [&] {
    auto* const bytes = static_cast<unsigned char*>(EmulatedSharedMemory());
    num_poisoned += bytes[threadIdx.x] == kPoison;
    bytes[threadIdx.x] = 0;
  };
  ASSERT_EQ(RunGrid({dim3(3), dim3(32), 32}, thread), "");
  EXPECT_EQ(num_poisoned, 3 * 32);
}

// Each thread reads what its neighbour wrote: with the barrier in any order, without it in hardly any.
std::string Neighbours(bool with_barrier, std::vector<int>& seen) {
  return RunGrid({dim3(1), dim3(64), 64 * sizeof(int)}, [&] {
    auto* const shared = static_cast<int*>(EmulatedSharedMemory());
    shared[threadIdx.x] = static_cast<int>(threadIdx.x);
    if (with_barrier) __syncthreads();
    seen[threadIdx.x] = shared[(threadIdx.x + 1) % 64];
  });
}

TEST(GridTest, AMissingBarrierShowsInARandomOrder) {
  std::vector<int> expected(64);
  for (int i = 0; i < 64; ++i) expected[static_cast<size_t>(i)] = (i + 1) % 64;
  for (const Order order : {Order::kForward, Order::kBackward, Order::kRandom}) {
    SetOrder(order, 1);
    std::vector<int> seen(64);
    ASSERT_EQ(Neighbours(true, seen), "");
    EXPECT_EQ(seen, expected);
    ASSERT_EQ(Neighbours(false, seen), "");
    EXPECT_NE(seen, expected);
  }
  SetOrder(Order::kForward);
}

TEST(GridTest, ACopyIsSeenWhenItWasWaitedForAndNoSooner) {
  const int from[3] = {1, 2, 3};
  int to[3] = {};
  std::vector<std::vector<int>> seen;
  const auto look = [&] { seen.push_back({to[0], to[1], to[2]}); };
  const auto thread = [&] {
    for (int i = 0; i < 3; ++i) {
      BeginCopy(&to[i], &from[i], sizeof(int));
      CommitCopies();
    }
    look();
    AwaitCopies(2);
    look();
    AwaitCopies(0);
    look();
  };
  ASSERT_EQ(RunGrid({dim3(1), dim3(1)}, thread), "");
  EXPECT_THAT(seen,
              testing::ElementsAre(std::vector<int>{0, 0, 0}, std::vector<int>{1, 0, 0}, std::vector<int>{1, 2, 3}));
}

}  // namespace
}  // namespace weft::cuda
