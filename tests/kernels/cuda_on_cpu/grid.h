// Runs CUDA kernels that were compiled as C++: a fibre for each thread of a block, one block after the other, all on
// the calling thread. Threads take turns only where CUDA lets them meet: at barriers and at what a warp does together.
//
// Found this way: a barrier or warp op that not all reach (reported as a deadlock, never passed over), shared memory
// that is read before it is written (it begins as poison), reads and writes out of range (under ASan: each block's
// shared memory is an allocation of its own), and barriers that are missing (a random order of threads between barriers
// changes the result).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace weft::cuda {

inline constexpr int kNumLanes = 32;
inline constexpr unsigned char kPoison = 0xff;  // floats of it are NaN, indices out of range

// Of a block's threads, between two places where they meet. Of the calling thread's kernels.
enum class Order { kForward, kBackward, kRandom };
void SetOrder(Order order, uint64_t seed = 0);

struct GridShape {
  dim3 grid, block;
  size_t shared_bytes = 0;  // dynamic
};

// What each thread of the grid does. Returns what went wrong, or nothing.
std::string RunGrid(const GridShape& shape, const std::function<void()>& thread);

// For the intrinsics, within a kernel.

// Where in the source, so that threads that meet at different places are told from those that meet.
struct CodePlace {
  const char* file = "";
  int line = 0;

  bool operator==(const CodePlace&) const = default;
};

// All threads of the block that have not ended.
void MeetBlock(CodePlace place);

// Waits until every lane of `mask` is here, and runs `op` once for all: operands[lane] is what the lane passed, null
// for lanes that are not in the mask.
using WarpOp = void (*)(void* const* operands);
void MeetWarp(unsigned mask, CodePlace place, void* operand, WarpOp op);

// Copies that a thread has begun and that nobody sees before it waits for them.
void BeginCopy(void* to, const void* from, size_t bytes);  // from null: zeros
void CommitCopies();
void AwaitCopies(int num_pending);  // until at most so many commits are under way

void* EmulatedSharedMemory();  // of the block
int Lane();

}  // namespace weft::cuda

extern thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;
