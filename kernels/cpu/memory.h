// Memory of the CPU backend: zeroed, aligned, on huge pages where it is large.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/tensor.h"

namespace weft::cpu {

// `bytes` of zeroed memory, 64-byte aligned. Error: ResourceExhausted, naming the bytes.
// Where it is large, the system gives it a page at a time, when the page is first touched.
absl::StatusOr<Buffer> AllocateMemory(size_t bytes);

// Touches all of a buffer that is zero, with the pool's threads. A huge page takes the system 0.1 to 4 ms (a virtual
// machine's first ones the longest): better now than in the step that first comes there.
void TouchMemory(const Buffer& zeroed, ThreadPool& pool);

// Working memory of ops: grows to the largest request seen and stays, so that a warm step allocates nothing.
// Owned and used by one thread; kernels on pool threads may write into what it handed out.
class Scratch {
 public:
  // At least `bytes`, 64-byte aligned, contents undefined; valid until the next call. Ends the process when the machine
  // has no memory left, since an op has no way to fail.
  void* Get(size_t bytes);

 private:
  Buffer buffer_;
};

}  // namespace weft::cpu
