// What every communicator does alike, whatever carries it.

#include "kernels/communicator.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/kernels/communicator_group.h"

namespace weft {
namespace {

uint32_t Mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x45d9f3bu;
  x = (x ^ (x >> 15)) * 0x2c1b3c6du;
  return x ^ (x >> 14);
}

// Values of magnitudes so different that a sum depends on its order.
float ValueOf(int rank, size_t i) {
  const uint32_t bits = Mix(static_cast<uint32_t>(rank) * 7919u + static_cast<uint32_t>(i) * 104729u + 1);
  const float fraction = static_cast<float>(static_cast<int>(bits % 4001) - 2000) / 1000;
  return std::ldexp(fraction, static_cast<int>(bits / 4001 % 24) - 12);
}

std::vector<float> ValuesOf(int rank, size_t count, size_t salt = 0) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = ValueOf(rank, i + salt);
  return values;
}

std::vector<float> SumOf(std::vector<int> ranks, size_t count, size_t salt = 0) {
  std::vector<float> sum = ValuesOf(ranks[0], count, salt);
  for (size_t r = 1; r < ranks.size(); ++r) {
    for (size_t i = 0; i < count; ++i) sum[i] += ValueOf(ranks[r], i + salt);
  }
  return sum;
}

std::vector<int> RanksOf(const Communicator& comm) {
  std::vector<int> ranks(static_cast<size_t>(comm.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

Tensor Floats(std::vector<float>& values, int64_t rows = 1) {
  return DenseTensor(values.data(), DType::kF32, rows, static_cast<int64_t>(values.size()) / rows);
}

Tensor Bytes(std::string& bytes) {
  return DenseTensor(bytes.data(), DType::kI8, 1, static_cast<int64_t>(bytes.size()));
}

std::string Message(int source, int number, size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    bytes[i] =
        static_cast<char>(Mix(static_cast<uint32_t>(source * 1000003 + number * 101) + static_cast<uint32_t>(i)));
  }
  return bytes;
}

// From buffers' fractions to many times the small buffers of GroupSizes.
constexpr size_t kCounts[] = {0, 1, 3, 15, 16, 17, 255, 256, 257, 1000, 1024, 1025, 4099, 20011};

class CommunicatorTest : public ::testing::TestWithParam<std::tuple<Transport, int>> {
 protected:
  Transport transport() const { return std::get<0>(GetParam()); }
  int size() const { return std::get<1>(GetParam()); }
  bool shares_memory() const { return transport() != Transport::kGloo; }
};

INSTANTIATE_TEST_SUITE_P(
    All, CommunicatorTest,
    ::testing::Combine(::testing::Values(Transport::kThreads, Transport::kProcesses, Transport::kGloo),
                       ::testing::Values(1, 2, 3, 4)),
    [](const auto& param) { return absl::StrCat(TransportName(std::get<0>(param.param)), std::get<1>(param.param)); });

TEST_P(CommunicatorTest, AddsInTheOrderOfRanks) {
  Group(transport(), size()).Run([&](Communicator& comm) {
    for (const size_t count : kCounts) {
      std::vector<float> x = ValuesOf(comm.rank(), count);
      comm.AllReduceSum(Floats(x));
      EXPECT_TRUE(SameBits(x, SumOf(RanksOf(comm), count))) << count << " values on rank " << comm.rank();
    }
    EXPECT_TRUE(comm.status().ok()) << comm.status();
  });
  if (size() < 3) return;
  std::vector<int> reversed(static_cast<size_t>(size()));
  std::iota(reversed.rbegin(), reversed.rend(), 0);
  const std::vector<int> ranks(reversed.rbegin(), reversed.rend());
  EXPECT_FALSE(SameBits(SumOf(ranks, 1000), SumOf(reversed, 1000))) << "the order has to matter for the values above";
}

TEST_P(CommunicatorTest, AddsBuffersOfTheDefaultSize) {
  GroupSizes sizes;
  sizes.stage_bytes = size_t{256} << 10;
  sizes.piece_bytes = size_t{128} << 10;
  Group(transport(), size(), sizes).Run([&](Communicator& comm) {
    for (const size_t count : {size_t{8192}, size_t{8193}, size_t{300001}}) {
      std::vector<float> x = ValuesOf(comm.rank(), count);
      comm.AllReduceSum(Floats(x));
      EXPECT_TRUE(SameBits(x, SumOf(RanksOf(comm), count))) << count << " values on rank " << comm.rank();
    }
    EXPECT_TRUE(comm.status().ok()) << comm.status();
  });
}

TEST_P(CommunicatorTest, AddsEachRowTheSameInAnyCompany) {
  constexpr size_t kRows = 7;
  constexpr size_t kCols = 813;
  Group(transport(), size()).Run([&](Communicator& comm) {
    std::vector<float> together = ValuesOf(comm.rank(), kRows * kCols);
    std::vector<float> alone = together;
    comm.AllReduceSum(Floats(together, kRows));
    for (size_t row = 0; row < kRows; ++row) {
      comm.AllReduceSum(Floats(alone, kRows).Rows(static_cast<int64_t>(row), 1));
    }
    EXPECT_TRUE(SameBits(together, alone));
    EXPECT_TRUE(comm.status().ok()) << comm.status();
  });
}

TEST_P(CommunicatorTest, GathersInTheOrderOfRanks) {
  Group(transport(), size()).Run([&](Communicator& comm) {
    for (const size_t count : kCounts) {
      std::string x = Message(comm.rank(), 0, count);
      std::string out(count * static_cast<size_t>(comm.size()), 'x');
      comm.AllGather(Bytes(x), DenseTensor(out.data(), DType::kI8, comm.size(), static_cast<int64_t>(count)));
      std::string expected;
      for (int r = 0; r < comm.size(); ++r) expected += Message(r, 0, count);
      EXPECT_EQ(out, expected) << count << " bytes on rank " << comm.rank();
    }
    EXPECT_TRUE(comm.status().ok()) << comm.status();
  });
}

TEST_P(CommunicatorTest, GathersFromItsPlaceInTheResult) {
  constexpr size_t kCount = 3000;
  Group(transport(), size()).Run([&](Communicator& comm) {
    std::vector<float> out(kCount * static_cast<size_t>(comm.size()));
    const Tensor all = Floats(out, 2 * comm.size());
    const std::vector<float> mine = ValuesOf(comm.rank(), kCount);
    std::copy(mine.begin(), mine.end(), out.begin() + comm.rank() * static_cast<ptrdiff_t>(kCount));
    comm.AllGather(all.Rows(2 * comm.rank(), 2), all);
    std::vector<float> expected;
    for (int r = 0; r < comm.size(); ++r) {
      const std::vector<float> part = ValuesOf(r, kCount);
      expected.insert(expected.end(), part.begin(), part.end());
    }
    EXPECT_TRUE(SameBits(out, expected));
    EXPECT_TRUE(comm.status().ok()) << comm.status();
  });
}

TEST_P(CommunicatorTest, BroadcastsFromAnyRoot) {
  Group(transport(), size()).Run([&](Communicator& comm) {
    for (const size_t count : kCounts) {
      const int root = static_cast<int>(count) % comm.size();
      std::string x = Message(comm.rank(), 1, count);
      comm.Broadcast(Bytes(x), root);
      EXPECT_EQ(x, Message(root, 1, count)) << "rank " << comm.rank();
    }
    EXPECT_TRUE(comm.status().ok()) << comm.status();
  });
}

TEST_P(CommunicatorTest, SendsAheadOfItsPeers) {
  if (size() == 1) return;
  const GroupSizes sizes;
  Group(transport(), size(), sizes).Run([&](Communicator& comm) {
    const int next = (comm.rank() + 1) % comm.size();
    const int before = (comm.rank() + comm.size() - 1) % comm.size();
    for (int round = 0; round < 5; ++round) {
      // All ranks send all before any receives: it is the room ahead that keeps this from a standstill.
      for (int i = 0; i < sizes.num_pieces; ++i) {
        std::string x = Message(comm.rank(), i, sizes.piece_bytes - static_cast<size_t>(i * round));
        comm.Send(Bytes(x), next);
      }
      std::vector<float> between = ValuesOf(comm.rank(), 5000);
      comm.AllReduceSum(Floats(between));
      EXPECT_TRUE(SameBits(between, SumOf(RanksOf(comm), 5000))) << "a group op passes messages by";
      for (int i = 0; i < sizes.num_pieces; ++i) {
        const std::string expected = Message(before, i, sizes.piece_bytes - static_cast<size_t>(i * round));
        std::string x(expected.size(), '\0');
        comm.Recv(Bytes(x), before);
        EXPECT_EQ(x, expected) << "message " << i;
      }
    }
    EXPECT_TRUE(comm.status().ok()) << comm.status();
  });
}

TEST_P(CommunicatorTest, PassesMessagesBeyondAllBuffers) {
  if (size() == 1) return;
  Group(transport(), size()).Run([&](Communicator& comm) {
    const int last = comm.size() - 1;
    for (int number = 0; number < 20; ++number) {
      const size_t bytes = static_cast<size_t>(number) * 2003;  // the first has none
      std::string x = comm.rank() == 0 ? Message(0, number, bytes) : std::string(bytes, '\0');
      if (comm.rank() > 0) comm.Recv(Bytes(x), comm.rank() - 1);
      EXPECT_EQ(x, Message(0, number, bytes));
      if (comm.rank() < last) comm.Send(Bytes(x), comm.rank() + 1);
    }
    std::vector<float> none;
    comm.AllReduceSum(DenseTensor(nullptr, DType::kF32, 0, 8));  // so that nobody leaves with messages on the way
    EXPECT_TRUE(comm.status().ok()) << comm.status();
  });
}

TEST_P(CommunicatorTest, RunsLongProgramsOfSmallOps) {
  const int num_ops = transport() == Transport::kGloo ? 4000 : 20000;
  Group(transport(), size()).Run([&](Communicator& comm) {
    int num_wrong = 0;
    for (int i = 0; i < num_ops && comm.status().ok(); ++i) {
      const uint32_t dice = Mix(static_cast<uint32_t>(i));
      const size_t count = dice / 8 % 40 == 0 ? dice / 320 % 3000 : dice / 320 % 64;
      const int root = static_cast<int>(dice / 16 % static_cast<uint32_t>(comm.size()));
      const int peer = (root + 1) % comm.size();
      if (dice % 4 == 0) {
        std::vector<float> x = ValuesOf(comm.rank(), count, dice);
        comm.AllReduceSum(Floats(x));
        if (!SameBits(x, SumOf(RanksOf(comm), count, dice))) ++num_wrong;
      } else if (dice % 4 == 1) {
        std::string x = Message(comm.rank(), i, count);
        std::string out(count * static_cast<size_t>(comm.size()), '\0');
        comm.AllGather(Bytes(x), DenseTensor(out.data(), DType::kI8, comm.size(), static_cast<int64_t>(count)));
        if (out.substr(static_cast<size_t>(root) * count, count) != Message(root, i, count)) ++num_wrong;
      } else if (dice % 4 == 2) {
        std::string x = Message(comm.rank(), i, count);
        comm.Broadcast(Bytes(x), root);
        if (x != Message(root, i, count)) ++num_wrong;
      } else if (peer != root && comm.rank() == root) {
        std::string x = Message(root, i, count);
        comm.Send(Bytes(x), peer);
      } else if (peer != root && comm.rank() == peer) {
        std::string x(count, '\0');
        comm.Recv(Bytes(x), root);
        if (x != Message(root, i, count)) ++num_wrong;
      }
    }
    comm.AllReduceSum(DenseTensor(nullptr, DType::kF32, 0, 8));
    EXPECT_EQ(num_wrong, 0);
    EXPECT_TRUE(comm.status().ok()) << comm.status();
  });
}

// Rank 0's watchdog sees it wait for the last rank, which never comes, and ends it.
TEST_P(CommunicatorTest, NamesTheMissingPeerAndEndsTheWait) {
  if (size() == 1) return;
  SharedWords words;
  const int last = size() - 1;
  Group(transport(), size()).Run([&](Communicator& comm) {
    std::vector<float> x = ValuesOf(comm.rank(), 100);
    comm.AllReduceSum(Floats(x));
    EXPECT_FALSE(comm.waiting().has_value());
    if (comm.rank() == last) {
      words.Await(0, 1);
    } else if (comm.rank() == 0) {
      std::thread watchdog([&] {
        std::optional<CommWait> wait;
        while (!wait.has_value() || wait->missing != std::vector<int>{last}) {
          std::this_thread::yield();
          wait = comm.waiting();
        }
        EXPECT_EQ(wait->op, CommOp::kAllReduceSum);
        EXPECT_EQ(wait->number, 1);
        EXPECT_EQ(wait->bytes, 400);
        EXPECT_GE(wait->elapsed, absl::ZeroDuration());
        comm.Abort(absl::CancelledError("rank is late"));
        words[0] = 1;
      });
      comm.AllReduceSum(Floats(x));
      EXPECT_EQ(comm.status(), absl::CancelledError("rank is late"));
      watchdog.join();
    }
    // Elsewhere it may take an op more, and the reason may be lost with the connection.
    do {
      comm.AllReduceSum(Floats(x));
    } while (!shares_memory() && comm.status().ok());
    const bool is_known = absl::StrContains(comm.status().message(), "rank is late");
    EXPECT_TRUE(absl::IsCancelled(comm.status()) ? is_known : !shares_memory() && absl::IsUnavailable(comm.status()))
        << comm.status();
    EXPECT_FALSE(comm.waiting().has_value());
  });
}

TEST_P(CommunicatorTest, NamesThePeerOfAMessage) {
  if (size() == 1) return;
  SharedWords words;
  Group(transport(), size()).Run([&](Communicator& comm) {
    if (comm.rank() == 1) words.Await(0, 1);
    if (comm.rank() != 0) return;
    std::thread watchdog([&] {
      std::optional<CommWait> wait;
      while (!wait.has_value() || wait->missing.empty()) {
        std::this_thread::yield();
        wait = comm.waiting();
      }
      EXPECT_EQ(wait->op, CommOp::kRecv);
      EXPECT_EQ(wait->missing, std::vector<int>{1});
      comm.Abort(absl::CancelledError("nothing comes"));
    });
    std::string x(10, '\0');
    comm.Recv(Bytes(x), 1);
    watchdog.join();
    EXPECT_TRUE(absl::IsCancelled(comm.status())) << comm.status();
    words[0] = 1;
  });
}

// A sender whose peer never reads runs out of room, not out of memory.
TEST_P(CommunicatorTest, SendWaitsForRoom) {
  if (size() == 1) return;
  SharedWords words;
  Group(transport(), size()).Run([&](Communicator& comm) {
    if (comm.rank() == 1) words.Await(0, 1);
    if (comm.rank() != 0) return;
    std::thread watchdog([&] {
      // Until the same message has been waiting for room at two looks: an event that has no other sign.
      std::optional<CommWait> wait;
      int64_t number = -1;
      int looks = 0;
      while (looks < 1000) {
        std::this_thread::yield();
        wait = comm.waiting();
        const bool waits = wait.has_value() && wait->missing == std::vector<int>{1} && wait->number >= 8;
        looks = waits && wait->number == number ? looks + 1 : 0;
        number = waits ? wait->number : -1;
      }
      EXPECT_EQ(wait->op, CommOp::kSend);
      comm.Abort(absl::CancelledError("nobody reads"));
    });
    std::string x(100, 'x');
    while (comm.status().ok()) comm.Send(Bytes(x), 1);
    watchdog.join();
    EXPECT_TRUE(absl::IsCancelled(comm.status())) << comm.status();
    words[0] = 1;
  });
}

struct MismatchCase {
  const char* name;
  std::function<void(Communicator&)> op;
  std::vector<const char*> words;
};

void Reduce(Communicator& comm, size_t count) {
  std::vector<float> x(count);
  comm.AllReduceSum(Floats(x));
}

void Gather(Communicator& comm, size_t count) {
  std::vector<float> x(count);
  std::vector<float> out(count * static_cast<size_t>(comm.size()));
  comm.AllGather(Floats(x), Floats(out, comm.size()));
}

void Spread(Communicator& comm, size_t count, int root) {
  std::vector<float> x(count);
  comm.Broadcast(Floats(x), root);
}

void Pass(Communicator& comm, size_t sent, size_t received) {
  std::vector<float> x(comm.rank() == 0 ? sent : received);
  if (comm.rank() == 0) comm.Send(Floats(x), 1);
  if (comm.rank() == 1) comm.Recv(Floats(x), 0);
}

TEST_P(CommunicatorTest, NoticesRanksThatDisagree) {
  if (size() == 1) return;
  const int last = size() - 1;
  const auto pick = [last](Communicator& comm, size_t usual, size_t other) {
    return comm.rank() == last ? other : usual;
  };
  const MismatchCase cases[] = {
      {"sum", [&](Communicator& c) { Reduce(c, pick(c, 10, 20)); }, {"AllReduceSum", "40 bytes", "80 bytes"}},
      {"large sum", [&](Communicator& c) { Reduce(c, pick(c, 50000, 20)); }, {"AllReduceSum", " 200000 ", " 80 "}},
      {"no sum", [&](Communicator& c) { Reduce(c, pick(c, 10, 0)); }, {"AllReduceSum", " 40 ", " 0 bytes"}},
      {"gather", [&](Communicator& c) { Gather(c, pick(c, 10, 20)); }, {"AllGather", " 40 ", " 80 "}},
      {"broadcast", [&](Communicator& c) { Spread(c, pick(c, 10, 20), 0); }, {"Broadcast", " 40 ", " 80 "}},
      {"root", [&](Communicator& c) { Spread(c, 10, c.rank() == last ? 1 : 0); }, {"from 0", "from 1", " 40 "}},
      {"op",
       [&](Communicator& c) { c.rank() == last ? Gather(c, 10) : Reduce(c, 10); },
       {"AllReduceSum", "AllGather", " 40 "}},
      {"message", [&](Communicator& c) { Pass(c, 10, 20); }, {"Send", "Recv", " 40 ", " 80 "}},
      {"long message", [&](Communicator& c) { Pass(c, 50000, 20); }, {"Send", "Recv", " 200000 ", " 80 "}},
      {"short message", [&](Communicator& c) { Pass(c, 0, 5000); }, {"Send", "Recv", " 0 ", " 20000 "}},
  };
  for (const MismatchCase& test : cases) {
    SharedWords words;
    Group(transport(), size()).Run([&](Communicator& comm) {
      test.op(comm);
      comm.AllReduceSum(DenseTensor(nullptr, DType::kF32, 0, 8));  // where it spreads at the latest
      const absl::Status status = comm.status();
      EXPECT_FALSE(status.ok()) << test.name;
      bool names_all = absl::IsInvalidArgument(status);
      for (const char* word : test.words) names_all = names_all && absl::StrContains(status.message(), word);
      words[0] += names_all ? 1 : 0;
      if (shares_memory()) {
        EXPECT_TRUE(names_all) << test.name << ": " << status;
      }
    });
    EXPECT_GT(words[0].load(), 0) << test.name;
  }
}

TEST_P(CommunicatorTest, DoesNothingAfterAnAbort) {
  Group(transport(), size()).Run([&](Communicator& comm) {
    comm.Abort(absl::DataLossError("first"));
    comm.Abort(absl::CancelledError("second"));
    EXPECT_EQ(comm.status().message(), "first");
    std::vector<float> x = ValuesOf(comm.rank(), 10);
    const std::vector<float> before = x;
    comm.AllReduceSum(Floats(x));
    comm.Broadcast(Floats(x), 0);
    if (comm.size() > 1) {
      comm.Send(Floats(x), comm.rank() == 0 ? 1 : 0);
      comm.Recv(Floats(x), comm.rank() == 0 ? 1 : 0);
    }
    EXPECT_TRUE(SameBits(x, before));
    EXPECT_EQ(comm.stats()[CommOp::kAllReduceSum].calls, 0);
  });
}

TEST_P(CommunicatorTest, CountsItsOps) {
  Group(transport(), size()).Run([&](Communicator& comm) {
    for (int i = 0; i < 3; ++i) Reduce(comm, 100);
    for (int i = 0; i < 2; ++i) Gather(comm, 50);
    Spread(comm, 25, 0);
    if (comm.size() > 1) Pass(comm, 5, 5);
    comm.AllReduceSum(DenseTensor(nullptr, DType::kF32, 0, 8));
    const CommStats stats = comm.stats();
    EXPECT_EQ(stats[CommOp::kAllReduceSum].calls, 4);
    EXPECT_EQ(stats[CommOp::kAllReduceSum].bytes, 1200);
    EXPECT_EQ(stats[CommOp::kAllGather].calls, 2);
    EXPECT_EQ(stats[CommOp::kAllGather].bytes, 400);
    EXPECT_EQ(stats[CommOp::kBroadcast].calls, 1);
    EXPECT_EQ(stats[CommOp::kBroadcast].bytes, 100);
    EXPECT_EQ(stats[CommOp::kSend].calls, comm.size() > 1 && comm.rank() == 0 ? 1 : 0);
    EXPECT_EQ(stats[CommOp::kRecv].calls, comm.rank() == 1 ? 1 : 0);
    EXPECT_EQ(stats[CommOp::kRecv].bytes, comm.rank() == 1 ? 20 : 0);
    for (const CommOpStats& op : stats.ops) {
      EXPECT_GE(op.waiting, absl::ZeroDuration());
      EXPECT_GE(op.total, op.waiting);
    }
  });
}

}  // namespace
}  // namespace weft
