#include "tests/kernels/cuda_on_cpu/grid.h"

#include <sys/mman.h>

#include <algorithm>
#include <boost/context/detail/fcontext.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace weft::cuda {
namespace {

using boost::context::detail::fcontext_t;
using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

constexpr size_t kStackBytes = 256 << 10;
// Of every CUDA device, for kernels that ask for no more.
constexpr unsigned kMaxGridYZ = 65'535;
constexpr size_t kMaxSharedBytes = 48 << 10;

// Tells ASan that the stack changes; nothing without it.
struct StackSwitch {
#if defined(__SANITIZE_ADDRESS__)
  void Begin(const void* bottom, size_t bytes) { __sanitizer_start_switch_fiber(&fake_stack, bottom, bytes); }
  void End(const void** from = nullptr, size_t* bytes = nullptr) {
    __sanitizer_finish_switch_fiber(fake_stack, from, bytes);
  }
  void* fake_stack = nullptr;
#else
  void Begin(const void*, size_t) {}
  void End(const void** = nullptr, size_t* = nullptr) {}
#endif
};

class Stack {
 public:
  Stack() : data_(mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (data_ == MAP_FAILED) std::abort();
  }
  ~Stack() { munmap(data_, kStackBytes); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  void* bottom() const { return data_; }
  void* top() const { return static_cast<char*>(data_) + kStackBytes; }

 private:
  void* data_;
};

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  int commit;  // of the thread's commits
};

enum class State { kReady, kAtBarrier, kAtWarpOp, kEnded };

struct Fibre {
  Stack stack;
  fcontext_t context = nullptr;
  StackSwitch stack_switch;
  State state = State::kEnded;
  dim3 thread;        // its index
  CodePlace place;    // where it waits
  unsigned mask = 0;  // of its warp op
  void* operand = nullptr;
  WarpOp op = nullptr;
  std::vector<Copy> copies;  // that nobody has waited for, oldest first
  int num_commits = 0;
};

class Machine {
 public:
  std::string Run(const GridShape& shape, const std::function<void()>& thread);
  void SetOrder(Order order, uint64_t seed) {
    order_ = order;
    random_.seed(seed);
  }

  Fibre& current() { return *fibres_[static_cast<size_t>(current_)]; }
  int lane() const { return current_ % kNumLanes; }
  void* shared() { return shared_.get(); }
  void Wait(State state);

 private:
  static void Main(transfer_t from);
  void RunBlock(int num_threads);
  void Resume(int index);
  bool OpenBarrier(int num_threads);
  bool DoWarpOps(int num_threads);
  bool DoWarpOp(int first, int lane, int num_lanes);
  std::string Deadlock(int num_threads) const;

  Order order_ = Order::kForward;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Fibre>> fibres_;
  std::unique_ptr<unsigned char[]> shared_;
  const std::function<void()>* thread_ = nullptr;
  int current_ = -1;  // the fibre that runs
  fcontext_t scheduler_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
  std::string failure_;
};

thread_local Machine machine;

void Machine::Main(transfer_t from) {
  Machine& m = machine;
  m.scheduler_ = from.fctx;
  StackSwitch().End(&m.scheduler_stack_, &m.scheduler_stack_bytes_);
  (*m.thread_)();
  m.Wait(State::kEnded);
  std::abort();  // nobody resumes what has ended
}

// Back to the scheduler; returns when this fibre's turn has come again.
void Machine::Wait(State state) {
  Fibre& fibre = current();
  fibre.state = state;
  fibre.stack_switch.Begin(scheduler_stack_, scheduler_stack_bytes_);
  scheduler_ = jump_fcontext(scheduler_, nullptr).fctx;
  fibre.stack_switch.End();
}

void Machine::Resume(int index) {
  current_ = index;
  Fibre& fibre = current();
  threadIdx = fibre.thread;
  StackSwitch own;
  own.Begin(fibre.stack.bottom(), kStackBytes);
  fibre.context = jump_fcontext(fibre.context, nullptr).fctx;
  own.End();
  current_ = -1;
}

std::string Machine::Run(const GridShape& shape, const std::function<void()>& thread) {
  const auto num_threads = static_cast<int>(shape.block.x * shape.block.y * shape.block.z);
  if (num_threads < 1 || num_threads > 1024) return "a block has 1 to 1024 threads";
  if (shape.grid.y > kMaxGridYZ || shape.grid.z > kMaxGridYZ) return "a grid has 65535 blocks at most along y and z";
  if (shape.shared_bytes > kMaxSharedBytes) return "a block has 48 KiB of shared memory at most";
  while (static_cast<int>(fibres_.size()) < num_threads) fibres_.push_back(std::make_unique<Fibre>());
  failure_.clear();
  thread_ = &thread;
  gridDim = shape.grid;
  blockDim = shape.block;
  for (unsigned i = 0; i < static_cast<unsigned>(num_threads); ++i) {
    fibres_[i]->thread = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y));
  }
  for (unsigned z = 0; z < shape.grid.z; ++z) {
    for (unsigned y = 0; y < shape.grid.y; ++y) {
      for (unsigned x = 0; x < shape.grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        shared_.reset(new unsigned char[shape.shared_bytes]);  // 16-byte aligned, as malloc does it
        std::memset(shared_.get(), kPoison, shape.shared_bytes);
        RunBlock(num_threads);
        if (!failure_.empty()) return failure_;
      }
    }
  }
  return "";
}

void Machine::RunBlock(int num_threads) {
  for (int i = 0; i < num_threads; ++i) {
    Fibre& fibre = *fibres_[static_cast<size_t>(i)];
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(fibre.stack.bottom(), kStackBytes);
#endif
    fibre.context = make_fcontext(fibre.stack.top(), kStackBytes, &Machine::Main);
    fibre.state = State::kReady;
    fibre.copies.clear();
    fibre.num_commits = 0;
  }
  std::vector<int> order(static_cast<size_t>(num_threads));
  std::iota(order.begin(), order.end(), 0);
  if (order_ == Order::kBackward) std::reverse(order.begin(), order.end());
  for (;;) {
    if (order_ == Order::kRandom) std::shuffle(order.begin(), order.end(), random_);
    for (const int index : order) {
      if (fibres_[static_cast<size_t>(index)]->state == State::kReady) Resume(index);
    }
    const bool goes_on = DoWarpOps(num_threads) || OpenBarrier(num_threads);
    if (!failure_.empty()) return;
    if (goes_on) continue;
    const bool has_ended = std::all_of(fibres_.begin(), fibres_.begin() + num_threads,
                                       [](const auto& fibre) { return fibre->state == State::kEnded; });
    if (!has_ended) failure_ = Deadlock(num_threads);
    return;
  }
}

// All threads that have not ended are at the same barrier: they go on.
bool Machine::OpenBarrier(int num_threads) {
  const Fibre* first = nullptr;
  for (int i = 0; i < num_threads; ++i) {
    const Fibre& fibre = *fibres_[static_cast<size_t>(i)];
    if (fibre.state == State::kEnded) continue;
    if (fibre.state != State::kAtBarrier) return false;
    if (first == nullptr) first = &fibre;
    if (!(fibre.place == first->place)) return false;
  }
  for (int i = 0; i < num_threads; ++i) {
    Fibre& fibre = *fibres_[static_cast<size_t>(i)];
    if (fibre.state == State::kAtBarrier) fibre.state = State::kReady;
  }
  return first != nullptr;
}

bool Machine::DoWarpOps(int num_threads) {
  bool any = false;
  for (int first = 0; first < num_threads; first += kNumLanes) {
    const int num_lanes = std::min(kNumLanes, num_threads - first);
    for (int lane = 0; lane < num_lanes; ++lane) any |= DoWarpOp(first, lane, num_lanes);
  }
  return any;
}

// The op that this lane waits for, if all others of its mask do.
bool Machine::DoWarpOp(int first, int lane, int num_lanes) {
  const Fibre& asking = *fibres_[static_cast<size_t>(first + lane)];
  // A lane that isn't in its own mask waits for ever, and is reported.
  if (asking.state != State::kAtWarpOp || (asking.mask >> lane & 1) == 0) return false;
  void* operands[kNumLanes] = {};
  for (int other = 0; other < kNumLanes; ++other) {
    if ((asking.mask >> other & 1) == 0) continue;
    if (other >= num_lanes) return false;
    const Fibre& fibre = *fibres_[static_cast<size_t>(first + other)];
    const bool is_here = fibre.state == State::kAtWarpOp && fibre.mask == asking.mask && fibre.place == asking.place;
    if (!is_here) return false;
    operands[other] = fibre.operand;
  }
  asking.op(operands);
  const unsigned mask = asking.mask;
  for (int other = 0; other < num_lanes; ++other) {
    if ((mask >> other & 1) != 0) fibres_[static_cast<size_t>(first + other)]->state = State::kReady;
  }
  return true;
}

std::string Machine::Deadlock(int num_threads) const {
  std::string text = "deadlock in block " + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                     std::to_string(blockIdx.z) + ":";
  const Fibre* before = nullptr;
  for (int i = 0; i < num_threads; ++i) {
    const Fibre& fibre = *fibres_[static_cast<size_t>(i)];
    const bool is_like_before =
        before != nullptr && fibre.state == before->state && fibre.place == before->place && fibre.mask == before->mask;
    before = &fibre;
    if (is_like_before) continue;
    text += " from thread " + std::to_string(i) + " on ";
    if (fibre.state == State::kEnded) {
      text += "ended;";
      continue;
    }
    char where[256];
    std::snprintf(where, sizeof where, "at the %s of %s:%d;", fibre.state == State::kAtBarrier ? "barrier" : "warp op",
                  fibre.place.file, fibre.place.line);
    text += where;
  }
  return text;
}

}  // namespace

void SetOrder(Order order, uint64_t seed) { machine.SetOrder(order, seed); }

std::string RunGrid(const GridShape& shape, const std::function<void()>& thread) { return machine.Run(shape, thread); }

void MeetBlock(CodePlace place) {
  machine.current().place = place;
  machine.Wait(State::kAtBarrier);
}

void MeetWarp(unsigned mask, CodePlace place, void* operand, WarpOp op) {
  Fibre& fibre = machine.current();
  fibre.place = place;
  fibre.mask = mask;
  fibre.operand = operand;
  fibre.op = op;
  machine.Wait(State::kAtWarpOp);
}

void BeginCopy(void* to, const void* from, size_t bytes) {
  Fibre& fibre = machine.current();
  fibre.copies.push_back({to, from, bytes, fibre.num_commits});
}

void CommitCopies() { ++machine.current().num_commits; }

void AwaitCopies(int num_pending) {
  Fibre& fibre = machine.current();
  const auto is_due = [&](const Copy& copy) { return copy.commit < fibre.num_commits - num_pending; };
  for (const Copy& copy : fibre.copies) {
    if (!is_due(copy)) continue;
    if (copy.from == nullptr) {
      std::memset(copy.to, 0, copy.bytes);
    } else {
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
  }
  std::erase_if(fibre.copies, is_due);
}

void* EmulatedSharedMemory() { return machine.shared(); }
int Lane() { return machine.lane(); }

}  // namespace weft::cuda
