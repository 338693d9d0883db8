// What every launcher of the CPU backend works with.
#pragma once

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/thread_pool.h"

namespace weft::cpu {

// Owned by one CpuBackend; used by the one thread that calls its ops.
struct Context {
  Context(Isa isa, int num_threads) : kernels(KernelsFor(isa)), pool(num_threads) {}

  const Kernels& kernels;
  ThreadPool pool;
  Scratch scratch;
};

// Runs rows(begin, end) over [0, num_rows) in tasks of about 16k elements, enough to be worth another thread.
template <class Fn>
void ForRows(Context& context, int64_t num_rows, int64_t elements_per_row, Fn rows) {
  constexpr int64_t kElementsPerTask = 16384;
  const int64_t rows_per_task =
      elements_per_row >= kElementsPerTask ? 1 : kElementsPerTask / (elements_per_row + 1) + 1;
  const int64_t num_tasks = (num_rows + rows_per_task - 1) / rows_per_task;
  context.pool.ParallelFor(num_tasks, [&](int64_t task, int) {
    const int64_t begin = task * rows_per_task;
    rows(begin, begin + rows_per_task < num_rows ? begin + rows_per_task : num_rows);
  });
}

}  // namespace weft::cpu
