#include "kernels/cpu/thread_pool.h"

#include <atomic>
#include <chrono>
#include <vector>

#include "gtest/gtest.h"

namespace weft::cpu {
namespace {

TEST(ThreadPoolTest, RunsEachTaskOnce) {
  for (int num_threads : {1, 2, 3, 8}) {
    ThreadPool pool(num_threads);
    for (int64_t num_tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(num_tasks));
      pool.ParallelFor(num_tasks, [&](int64_t task, int thread) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, num_threads);
        ++runs[static_cast<size_t>(task)];
      });
      for (const std::atomic<int>& count : runs) EXPECT_EQ(count, 1);
    }
  }
}

TEST(ThreadPoolTest, WritesOfTasksAreVisibleAfterwards) {
  ThreadPool pool(3);
  std::vector<int64_t> values(64);
  for (int64_t round = 1; round <= 20000; ++round) {
    pool.ParallelFor(64, [&](int64_t task, int) { values[static_cast<size_t>(task)] += task; });
    if (round % 1000 != 0) continue;
    for (int64_t task = 0; task < 64; ++task) ASSERT_EQ(values[static_cast<size_t>(task)], round * task);
  }
}

TEST(ThreadPoolTest, SleepersWakeForTheNextJob) {
  ThreadPool pool(2);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // well past the spinning
    std::atomic<bool> other_ran{false};
    pool.ParallelFor(2, [&](int64_t, int thread) {
      if (thread != 0) other_ran = true;
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
      while (!other_ran && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    });
    EXPECT_TRUE(other_ran);
  }
}

TEST(ThreadPoolTest, EndsWhetherWorkersSpinOrSleep) {
  for (int i = 0; i < 20; ++i) {
    ThreadPool pool(4);
    pool.ParallelFor(8, [](int64_t, int) {});
    if (i % 4 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace
}  // namespace weft::cpu
