// The threads of one CPU backend, and the one way to use them: run numbered tasks and wait.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace weft::cpu {

// num_threads - 1 threads that help the caller of ParallelFor. They spin for some tens of microseconds between jobs
// (the next op of a step comes sooner than a sleeping thread wakes), then sleep. Owned by one backend; ParallelFor is
// called by one thread at a time and never from inside a task.
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // >= 1
  ~ThreadPool();                         // joins
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Runs task(i, thread) once for each i in [0, num_tasks), with `thread` in [0, num_threads()) the number of the
  // thread that runs it, and returns when all have ended. Which thread runs which task varies: results must not depend
  // on it. A thread that is still asleep is not waited for, so a busy machine costs speed and nothing else.
  void ParallelFor(int64_t num_tasks, absl::FunctionRef<void(int64_t task, int thread)> task);

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

 private:
  using Task = absl::FunctionRef<void(int64_t, int)>;

  void WorkerMain(int thread);
  uint32_t AwaitJob(uint32_t seen);
  void RunTasks(int thread);

  // One word tells workers all they need: a generation that each job (and the destructor) raises, whether the job still
  // takes helpers, and how many it has. The job below is written only while it is closed and has none.
  std::atomic<uint32_t> state_{0};
  std::atomic<uint32_t> num_sleeping_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stopping_{false};

  const Task* task_ = nullptr;
  int64_t num_tasks_ = 0;
  alignas(64) std::atomic<int64_t> next_task_{0};

  std::vector<std::thread> workers_;
};

// The number of CPUs that this process may run on.
int NumUsableCpus();

}  // namespace weft::cpu
