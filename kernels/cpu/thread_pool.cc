#include "kernels/cpu/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstdio>

namespace weft::cpu {
namespace {

// state_: [generation : 19][open : 1][helpers : 12]. A worker that sleeps through 2^19 jobs and wakes in the one that
// looks like its last merely misses it.
constexpr uint32_t kHelpersMask = (1u << 12) - 1;
constexpr uint32_t kOpen = 1u << 12;
constexpr uint32_t kGeneration = 1u << 13;

constexpr int kSpins = 2000;  // of about 40 ns

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// std::atomic::wait would do, but spins and hashes addresses first; the kernel's own primitive is one call.
void FutexWait(const std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void FutexWakeAll(const std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

uint32_t GenerationOf(uint32_t state) { return state / kGeneration; }

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  for (int thread = 1; thread < num_threads; ++thread) workers_.emplace_back([this, thread] { WorkerMain(thread); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  state_.fetch_add(kGeneration);
  FutexWakeAll(state_);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int64_t num_tasks, absl::FunctionRef<void(int64_t, int)> task) {
  if (num_tasks <= 1 || workers_.empty()) {
    for (int64_t i = 0; i < num_tasks; ++i) task(i, 0);
    return;
  }
  task_ = &task;
  num_tasks_ = num_tasks;
  next_task_.store(0, std::memory_order_relaxed);
  state_.store((GenerationOf(state_.load(std::memory_order_relaxed)) + 1) * kGeneration | kOpen);
  if (num_sleeping_.load() != 0) FutexWakeAll(state_);

  RunTasks(0);

  uint32_t state = state_.fetch_and(~kOpen) & ~kOpen;
  // Helpers are in the middle of their last task, so this is short, unless one has lost its core.
  for (int spins = 0; (state & kHelpersMask) != 0; ++spins) {
    if (spins < kSpins) {
      Pause();
    } else {
      caller_sleeps_.store(true);
      FutexWait(state_, state);
      caller_sleeps_.store(false);
    }
    state = state_.load();
  }
}

void ThreadPool::RunTasks(int thread) {
  for (;;) {
    const int64_t i = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (i >= num_tasks_) return;
    (*task_)(i, thread);
  }
}

uint32_t ThreadPool::AwaitJob(uint32_t seen) {
  for (int spins = 0; spins < kSpins; ++spins) {
    const uint32_t state = state_.load();
    if (GenerationOf(state) != seen) return state;
    Pause();
  }
  num_sleeping_.fetch_add(1);
  uint32_t state = state_.load();
  while (GenerationOf(state) == seen) {
    FutexWait(state_, state);
    state = state_.load();
  }
  num_sleeping_.fetch_sub(1);
  return state;
}

void ThreadPool::WorkerMain(int thread) {
  char name[16];
  std::snprintf(name, sizeof(name), "weft-cpu-%d", thread);
  pthread_setname_np(pthread_self(), name);
  uint32_t seen = 0;
  while (!stopping_.load()) {
    uint32_t state = AwaitJob(seen);
    seen = GenerationOf(state);
    bool joined = false;
    while (!joined && GenerationOf(state) == seen && (state & kOpen) != 0) {
      joined = state_.compare_exchange_weak(state, state + 1);
    }
    if (!joined) continue;
    RunTasks(thread);
    state = state_.fetch_sub(1) - 1;
    if ((state & (kHelpersMask | kOpen)) == 0 && caller_sleeps_.load()) FutexWakeAll(state_);
  }
}

int NumUsableCpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return static_cast<int>(std::thread::hardware_concurrency());
  return CPU_COUNT(&set);
}

}  // namespace weft::cpu
