// Groups of ranks for tests: the same body runs as threads over shared memory, as processes over it, or as threads over
// Gloo on the loopback interface.
#pragma once

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/communicator.h"
#include "kernels/cpu/gloo_communicator.h"
#include "kernels/cpu/shm_communicator.h"
#include "tests/fakes/temp_dir.h"
#include "tests/kernels/file_rendezvous.h"

namespace weft {

enum class Transport { kThreads, kProcesses, kGloo };

inline std::string TransportName(Transport transport) {
  constexpr const char* kNames[] = {"Threads", "Processes", "Gloo"};
  return kNames[static_cast<int>(transport)];
}

// Buffers so small that tests outgrow them.
struct GroupSizes {
  size_t stage_bytes = 4096;  // of shared memory
  size_t piece_bytes = 1024;  // of a slot or a frame
  int num_pieces = 8;
  absl::Duration timeout = absl::Minutes(1);  // of Gloo
};

// Words that all ranks see, also those that are processes: how ranks of a test tell each other without an op.
class SharedWords {
 public:
  SharedWords() {
    void* const memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    words_ = new (memory) std::atomic<int>[64]();
  }
  ~SharedWords() { munmap(words_, 4096); }
  SharedWords(const SharedWords&) = delete;
  SharedWords& operator=(const SharedWords&) = delete;

  std::atomic<int>& operator[](int i) { return words_[i]; }
  void Await(int i, int value) {
    while (words_[i].load() < value) std::this_thread::yield();
  }

 private:
  std::atomic<int>* words_;
};

// Runs `body` in a child process; call it while this process has one thread.
inline pid_t StartProcess(const std::function<void()>& body) {
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid != 0) return pid;
  body();
  std::fflush(nullptr);
  _exit(::testing::Test::HasFailure() ? 1 : 0);
}

inline int AwaitProcess(pid_t pid) {
  int wait_status = 0;
  EXPECT_EQ(waitpid(pid, &wait_status, 0), pid);
  return wait_status;
}

// A group whose ranks meet when it runs, once.
class Group {
 public:
  using Body = std::function<void(Communicator&)>;

  Group(Transport transport, int size, const GroupSizes& sizes = {})
      : transport_(transport), size_(size), sizes_(sizes), store_(directory_.path()) {
    if (transport_ == Transport::kGloo) return;
    auto segment = cpu::ShmSegment::Create({size, sizes.stage_bytes, sizes.piece_bytes, sizes.num_pieces});
    EXPECT_TRUE(segment.ok()) << segment.status();
    segment_ = *std::move(segment);
  }

  cpu::ShmSegment& segment() { return *segment_; }

  // Runs the body on every rank and waits for all. A communicator outlives the bodies of all ranks.
  void Run(const Body& body) {
    if (transport_ == Transport::kProcesses) return RunProcesses(body);
    std::vector<std::unique_ptr<Communicator>> communicators(static_cast<size_t>(size_));
    std::vector<std::thread> threads;
    threads.reserve(communicators.size());
    for (int rank = 0; rank < size_; ++rank) {
      threads.emplace_back([&, rank] {
        std::unique_ptr<Communicator>& mine = communicators[static_cast<size_t>(rank)];
        mine = Join(rank);
        if (mine != nullptr) body(*mine);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::unique_ptr<Communicator> Join(int rank) {
    if (transport_ != Transport::kGloo) return Checked(cpu::ShmCommunicator::Attach(segment_, rank));
    cpu::GlooOptions options;
    options.rank = rank;
    options.size = size_;
    options.interface = "lo";
    options.timeout = sizes_.timeout;
    options.frame_bytes = sizes_.piece_bytes;
    options.num_frames = sizes_.num_pieces;
    return Checked(cpu::GlooCommunicator::Connect(options, store_));
  }

 private:
  template <typename T>
  static std::unique_ptr<Communicator> Checked(absl::StatusOr<std::unique_ptr<T>> made) {
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? *std::move(made) : nullptr;
  }

  void RunProcesses(const Body& body) {
    std::vector<pid_t> children;
    children.reserve(static_cast<size_t>(size_));
    for (int rank = 0; rank < size_; ++rank) {
      children.push_back(StartProcess([&] {
        const std::unique_ptr<Communicator> mine = Join(rank);
        if (mine != nullptr) body(*mine);
      }));
    }
    for (const pid_t child : children) EXPECT_EQ(AwaitProcess(child), 0) << "a rank failed, see above";
  }

  const Transport transport_;
  const int size_;
  const GroupSizes sizes_;
  TempDir directory_;
  FileRendezvous store_;
  std::shared_ptr<cpu::ShmSegment> segment_;  // the ranks of this process share it
};

}  // namespace weft
