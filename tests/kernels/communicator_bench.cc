// Measures the communicators' ops beside what the machine can do, probed in the same run, as a Markdown table.
//
//   weft_communicator_bench [threads|processes|gloo]
//
// Compare ratios, not times: on a shared machine the limits themselves move from minute to minute. A time is what one
// call takes on the slowest rank, in the median of rounds in which all ranks call as fast as they can.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "kernels/check.h"
#include "tests/kernels/communicator_group.h"

namespace weft {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

constexpr size_t kSizes[] = {256, 4 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20};
constexpr int kRounds = 9;

int CallsARound(size_t bytes) { return static_cast<int>(std::clamp<size_t>((16 << 20) / bytes, 2, 500)); }

template <typename Call>
double MedianSeconds(int calls, Call call) {
  std::vector<double> times;
  for (int round = 0; round < kRounds; ++round) {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < calls; ++i) call();
    times.push_back(SecondsSince(begin) / calls);
  }
  std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
  return times[kRounds / 2];
}

// One thread copying between two buffers.
double CopySeconds(size_t bytes) {
  std::vector<char> from(bytes, 1), to(bytes, 2);
  return MedianSeconds(CallsARound(bytes), [&] {
    std::memcpy(to.data(), from.data(), bytes);
    asm volatile("" : : "r"(to.data()) : "memory");
  });
}

bool MoveAll(int fd, char* data, size_t bytes, bool sending) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = sending ? send(fd, data + done, bytes - done, 0) : recv(fd, data + done, bytes - done, 0);
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

// Two ends of a TCP connection on the loopback interface.
struct TcpPair {
  TcpPair() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* const plain = reinterpret_cast<sockaddr*>(&address);
    CHECK(bind(listener, plain, length) == 0 && listen(listener, 1) == 0, "the loopback interface is there");
    CHECK(getsockname(listener, plain, &length) == 0, "a socket has a name");
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(ends[0], plain, length) == 0, "somebody listens");
    ends[1] = accept(listener, nullptr, nullptr);
    close(listener);
    const int on = 1;
    for (const int end : ends) setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  ~TcpPair() {
    for (const int end : ends) close(end);
  }

  int ends[2] = {};
};

// One way of a ping-pong of `bytes` between two threads.
double TcpSeconds(size_t bytes) {
  const TcpPair pair;
  const int calls = CallsARound(bytes);
  std::thread echo([&] {
    std::vector<char> data(bytes);
    for (int i = 0; i < calls * kRounds; ++i) {
      if (!MoveAll(pair.ends[1], data.data(), bytes, false) || !MoveAll(pair.ends[1], data.data(), bytes, true)) return;
    }
  });
  std::vector<char> data(bytes);
  const double seconds = MedianSeconds(calls, [&] {
    CHECK(MoveAll(pair.ends[0], data.data(), bytes, true), "the echo reads");
    CHECK(MoveAll(pair.ends[0], data.data(), bytes, false), "the echo answers");
  });
  echo.join();
  return seconds / 2;
}

// Seconds a call for each size and op, on each rank, where all ranks see them.
constexpr size_t kOps = 4;
constexpr const char* kOpNames[kOps] = {"AllReduceSum", "AllGather", "Broadcast", "Send/Recv"};

struct Results {
  double seconds[std::size(kSizes)][kOps];
};

void Measure(Communicator& comm, Results& results) {
  std::vector<float> x(kSizes[std::size(kSizes) - 1] / sizeof(float));
  std::vector<float> out(x.size() * static_cast<size_t>(comm.size()));
  for (size_t s = 0; s < std::size(kSizes); ++s) {
    const auto count = static_cast<int64_t>(kSizes[s] / sizeof(float));
    const Tensor part = DenseTensor(x.data(), DType::kF32, 1, count);
    const Tensor all = DenseTensor(out.data(), DType::kF32, comm.size(), count);
    const auto measure = [&](size_t op, auto call) {
      for (int i = 0; i < 3; ++i) call();
      results.seconds[s][op] = MedianSeconds(CallsARound(kSizes[s]), call);
    };
    measure(0, [&] { comm.AllReduceSum(part); });
    measure(1, [&] { comm.AllGather(part, all); });
    measure(2, [&] { comm.Broadcast(part, 0); });
    // One way of a ping-pong between the first two ranks.
    measure(3, [&] {
      if (comm.rank() == 0) comm.Send(part, 1);
      if (comm.rank() <= 1) comm.Recv(part, 1 - comm.rank());
      if (comm.rank() == 1) comm.Send(part, 0);
    });
    results.seconds[s][3] /= 2;
    comm.AllReduceSum(DenseTensor(nullptr, DType::kF32, 0, 1));
  }
  CHECK(comm.status().ok(), "a benchmark has no errors");
}

void MeasureTransport(Transport transport, int size, const Results& limits) {
  GroupSizes sizes;
  const cpu::ShmOptions shm;
  const cpu::GlooOptions gloo;
  const bool tcp = transport == Transport::kGloo;
  sizes.stage_bytes = shm.stage_bytes;
  sizes.piece_bytes = tcp ? gloo.frame_bytes : shm.slot_bytes;
  sizes.num_pieces = tcp ? gloo.num_frames : shm.num_slots;
  void* const memory =
      mmap(nullptr, sizeof(Results) * cpu::kMaxRanks, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED, "there is memory for results");
  auto* const results = static_cast<Results*>(memory);
  Group(transport, size, sizes).Run([&](Communicator& comm) { Measure(comm, results[comm.rank()]); });
  const size_t limit = tcp ? 1 : 0;
  for (size_t s = 0; s < std::size(kSizes); ++s) {
    std::printf("| %s | %d | %zu |", TransportName(transport).c_str(), size, kSizes[s]);
    for (size_t op = 0; op < kOps; ++op) {
      double slowest = 0;
      for (int r = 0; r < size; ++r) slowest = std::max(slowest, results[r].seconds[s][op]);
      std::printf(" %.1f |", slowest * 1e6);
    }
    std::printf(" %.1f |\n", limits.seconds[s][limit] * 1e6);
    std::fflush(stdout);
  }
  munmap(memory, sizeof(Results) * cpu::kMaxRanks);
}

void Run(const std::string& only) {
  Results limits{};
  for (size_t s = 0; s < std::size(kSizes); ++s) {
    limits.seconds[s][0] = CopySeconds(kSizes[s]);
    limits.seconds[s][1] = TcpSeconds(kSizes[s]);
  }
  std::printf("| transport | ranks | bytes |");
  for (const char* name : kOpNames) std::printf(" %s us |", name);
  std::printf(" limit us |\n|---|---:|---:|---:|---:|---:|---:|---:|\n");
  for (const Transport transport : {Transport::kThreads, Transport::kProcesses, Transport::kGloo}) {
    const std::string name = TransportName(transport);
    if (!only.empty() && !std::equal(only.begin() + 1, only.end(), name.begin() + 1, name.end())) continue;
    for (const int size : {2, 4}) MeasureTransport(transport, size, limits);
  }
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  weft::Run(argc > 1 ? argv[1] : "");
  return 0;
}
