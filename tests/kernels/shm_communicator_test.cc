// The shared-memory segment: what it refuses, and how its ranks end when one of them dies.

#include "kernels/cpu/shm_communicator.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "tests/kernels/communicator_group.h"

namespace weft {
namespace {

using cpu::ShmCommunicator;
using cpu::ShmHeader;
using cpu::ShmOptions;
using cpu::ShmSegment;

constexpr ShmOptions kSmall{2, 4096, 1024, 4};

int MakeMemfd() {
  const int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  EXPECT_GE(fd, 0);
  return fd;
}

void Seal(int fd) { EXPECT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0); }

// What a good segment begins with.
ShmHeader GoodHeader() {
  const std::unique_ptr<ShmSegment> segment = ShmSegment::Create(kSmall).value();
  ShmHeader header;
  EXPECT_EQ(pread(segment->fd(), &header, sizeof(header), 0), static_cast<ssize_t>(sizeof(header)));
  return header;
}

TEST(ShmSegmentTest, RefusesWhatIsNotASegment) {
  struct Case {
    const char* name;
    std::function<void(ShmHeader&)> change;
    const char* word;
  };
  const Case cases[] = {
      {"magic", [](ShmHeader& h) { h.magic = 7; }, "begins with 7"},
      {"version", [](ShmHeader& h) { h.version = 99; }, "version 99"},
      {"no ranks", [](ShmHeader& h) { h.num_ranks = 0; }, "num_ranks is 0"},
      {"ranks", [](ShmHeader& h) { h.num_ranks = 0xffffffff; }, "4294967295 ranks"},
      {"other ranks", [](ShmHeader& h) { h.num_ranks = 3; }, "its layout takes"},
      {"stage", [](ShmHeader& h) { h.stage_bytes = ~uint64_t{0}; }, "stage_bytes"},
      {"odd stage", [](ShmHeader& h) { h.stage_bytes += 1; }, "stage_bytes"},
      {"slot", [](ShmHeader& h) { h.slot_bytes = 0; }, "slot_bytes"},
      {"slots", [](ShmHeader& h) { h.num_slots = uint64_t{1} << 40; }, "slots"},
      {"no slots", [](ShmHeader& h) { h.num_slots = 0; }, "num_slots"},
      {"total", [](ShmHeader& h) { h.total_bytes += 4096; }, "its layout takes"},
  };
  for (const Case& test : cases) {
    ShmHeader header = GoodHeader();
    const auto file_bytes = static_cast<off_t>(header.total_bytes);
    test.change(header);
    const int fd = MakeMemfd();
    ASSERT_EQ(ftruncate(fd, file_bytes), 0);
    ASSERT_EQ(pwrite(fd, &header, sizeof(header), 0), static_cast<ssize_t>(sizeof(header)));
    Seal(fd);
    const absl::Status status = ShmSegment::Open(fd).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << test.name << ": " << status;
    EXPECT_TRUE(absl::StrContains(status.message(), test.word)) << test.name << ": " << status;
  }
}

TEST(ShmSegmentTest, RefusesFilesOfAnotherKindOrSize) {
  EXPECT_TRUE(absl::IsInvalidArgument(ShmSegment::Open(-1).status()));
  const int empty = MakeMemfd();
  EXPECT_TRUE(absl::IsInvalidArgument(ShmSegment::Open(empty).status()));

  const ShmHeader header = GoodHeader();
  const int cut = MakeMemfd();
  ASSERT_EQ(pwrite(cut, &header, sizeof(header), 0), static_cast<ssize_t>(sizeof(header)));
  Seal(cut);
  EXPECT_TRUE(absl::IsInvalidArgument(ShmSegment::Open(cut).status()));

  const int unsealed = MakeMemfd();
  ASSERT_EQ(ftruncate(unsealed, static_cast<off_t>(header.total_bytes)), 0);
  ASSERT_EQ(pwrite(unsealed, &header, sizeof(header), 0), static_cast<ssize_t>(sizeof(header)));
  EXPECT_TRUE(absl::StrContains(ShmSegment::Open(unsealed).status().message(), "size"));
}

TEST(ShmSegmentTest, RefusesOptionsOutOfRange) {
  for (const ShmOptions& options :
       {ShmOptions{0}, ShmOptions{-1}, ShmOptions{65}, ShmOptions{2, 0}, ShmOptions{2, 100}, ShmOptions{2, 64, 0},
        ShmOptions{2, 64, 65}, ShmOptions{2, 64, 64, 0}, ShmOptions{2, 64, 64, -1}, ShmOptions{2, size_t{1} << 40}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ShmSegment::Create(options).status()));
  }
}

TEST(ShmSegmentTest, OpensWhatAnotherMade) {
  const std::unique_ptr<ShmSegment> made = ShmSegment::Create(kSmall).value();
  const auto opened = ShmSegment::Open(dup(made->fd()));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->options().num_ranks, 2);
  EXPECT_EQ((*opened)->options().slot_bytes, 1024u);
  made->Abort(absl::DataLossError("seen through both"));
  EXPECT_EQ((*opened)->status(), absl::DataLossError("seen through both"));
}

TEST(ShmSegmentTest, CutsALongReasonAndDoubtsAStrangeOne) {
  const std::unique_ptr<ShmSegment> segment = ShmSegment::Create(kSmall).value();
  segment->Abort(absl::InternalError(std::string(10000, 'x')));
  EXPECT_TRUE(absl::IsInternal(segment->status()));
  EXPECT_GT(segment->status().message().size(), 400u);
  EXPECT_LT(segment->status().message().size(), 600u);

  // A process that died over its last words has left 1; a mad one, anything.
  for (const uint32_t word : {1u, 7u}) {
    const std::unique_ptr<ShmSegment> strange = ShmSegment::Create(kSmall).value();
    constexpr off_t kState = 64;
    ASSERT_EQ(pwrite(strange->fd(), &word, sizeof(word), kState), static_cast<ssize_t>(sizeof(word)));
    EXPECT_EQ(strange->aborted(), word != 1);
    strange->Abort(absl::InternalError("too late to be heard"));
    EXPECT_TRUE(absl::IsAborted(strange->status())) << strange->status();
  }
}

TEST(ShmCommunicatorTest, RefusesRanksThatAreTakenOrNone) {
  const std::shared_ptr<ShmSegment> segment = ShmSegment::Create(kSmall).value();
  EXPECT_TRUE(absl::IsInvalidArgument(ShmCommunicator::Attach(segment, 2).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ShmCommunicator::Attach(segment, -1).status()));
  auto first = ShmCommunicator::Attach(segment, 0);
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(absl::IsAlreadyExists(ShmCommunicator::Attach(segment, 0).status()));
  first->reset();
  EXPECT_TRUE(absl::IsAlreadyExists(ShmCommunicator::Attach(segment, 0).status())) << "also when it has gone";
  EXPECT_TRUE(ShmCommunicator::Attach(segment, 1).ok());
}

void ReduceTen(Communicator& comm) {
  float x[10] = {};
  comm.AllReduceSum(DenseTensor(x, DType::kF32, 1, 10));
}

void AwaitWaitingOr(const Communicator& comm, const std::function<bool()>& done) {
  for (std::optional<CommWait> wait; !wait.has_value() || wait->missing.empty(); wait = comm.waiting()) {
    if (done()) return;
    std::this_thread::yield();
  }
}

void AwaitWaiting(const Communicator& comm) {
  AwaitWaitingOr(comm, [] { return false; });
}

// Rank 2 never comes, rank 1 kills itself while it waits for it, and the parent, which has only the segment, tells
// rank 0.
TEST(ShmCommunicatorTest, SurvivesARankThatIsKilledInAnOp) {
  Group group(Transport::kProcesses, 3);
  const pid_t survivor = StartProcess([&] {
    const std::unique_ptr<Communicator> comm = group.Join(0);
    ReduceTen(*comm);
    EXPECT_EQ(comm->status(), absl::UnavailableError("rank 1 died"));
  });
  const pid_t victim = StartProcess([&] {
    const std::unique_ptr<Communicator> comm = group.Join(1);
    std::thread killer([&] {
      AwaitWaiting(*comm);
      raise(SIGKILL);
    });
    ReduceTen(*comm);
    killer.join();
  });
  const int end = AwaitProcess(victim);
  EXPECT_TRUE(WIFSIGNALED(end) && WTERMSIG(end) == SIGKILL);
  group.segment().Abort(absl::UnavailableError("rank 1 died"));
  EXPECT_EQ(AwaitProcess(survivor), 0);
}

TEST(ShmCommunicatorTest, EndsASenderWhoseReceiverWasKilled) {
  Group group(Transport::kProcesses, 2);
  const pid_t sender = StartProcess([&] {
    const std::unique_ptr<Communicator> comm = group.Join(0);
    char byte = 'x';
    while (comm->status().ok()) comm->Send(DenseTensor(&byte, DType::kI8, 1, 1), 1);
    EXPECT_TRUE(absl::IsUnavailable(comm->status())) << comm->status();
  });
  const pid_t receiver = StartProcess([&] {
    const std::unique_ptr<Communicator> comm = group.Join(1);
    char byte = 0;
    for (int i = 0; i < 100; ++i) comm->Recv(DenseTensor(&byte, DType::kI8, 1, 1), 0);
    raise(SIGKILL);
  });
  AwaitProcess(receiver);
  group.segment().Abort(absl::UnavailableError("rank 1 died"));
  EXPECT_EQ(AwaitProcess(sender), 0);
}

// Aborts come at any moment of a sleep's beginning: none may be slept through.
TEST(ShmCommunicatorTest, NeverSleepsThroughAnAbort) {
  for (int round = 0; round < 2000; ++round) {
    const std::shared_ptr<ShmSegment> segment = ShmSegment::Create({3, 64, 64, 1}).value();
    const auto waits = ShmCommunicator::Attach(segment, 0).value();
    std::thread other([&] {
      for (int spin = 0; spin < round % 50 * 20; ++spin) static_cast<void>(segment->aborted());
      segment->Abort(absl::CancelledError("now"));
    });
    ReduceTen(*waits);
    other.join();
    EXPECT_TRUE(absl::IsCancelled(waits->status()));
  }
}

// Random bytes all over the segment, but for the word of the end: ops may give errors, wait, or be wrong, and that is
// all.
TEST(ShmCommunicatorTest, OutlivesGarbageInTheSegment) {
  uint32_t noise = 1;
  for (int round = 0; round < 100; ++round) {
    const std::shared_ptr<ShmSegment> segment = ShmSegment::Create(kSmall).value();
    const auto comm = ShmCommunicator::Attach(segment, 0).value();
    std::string garbage(GoodHeader().total_bytes, '\0');
    for (char& byte : garbage) byte = static_cast<char>((noise = noise * 1664525u + 1013904223u) >> 24);
    constexpr off_t kPastAbort = 64 + sizeof(cpu::ShmAbort);
    ASSERT_GT(pwrite(segment->fd(), garbage.data(), garbage.size() - kPastAbort, kPastAbort), 0);
    std::thread watchdog([&] {
      AwaitWaitingOr(*comm, [&] { return segment->aborted(); });
      if (!segment->aborted()) segment->Abort(absl::CancelledError("it waits"));
    });
    char bytes[100] = {};
    while (comm->status().ok()) {
      if (round % 2 == 0) ReduceTen(*comm);
      comm->Recv(DenseTensor(bytes, DType::kI8, 1, 100), 1);
      comm->Send(DenseTensor(bytes, DType::kI8, 1, 100), 1);
    }
    watchdog.join();
    EXPECT_FALSE(comm->status().ok());
  }
}

}  // namespace
}  // namespace weft
