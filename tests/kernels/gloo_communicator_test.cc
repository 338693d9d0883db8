// What Gloo's communicator refuses, and what it says when a peer is gone or silent.

#include "kernels/cpu/gloo_communicator.h"

#include <csignal>
#include <functional>
#include <memory>
#include <thread>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "tests/kernels/communicator_group.h"

namespace weft {
namespace {

using cpu::GlooCommunicator;
using cpu::GlooOptions;

TEST(GlooCommunicatorTest, RefusesOptionsOutOfRange) {
  struct Case {
    const char* word;
    std::function<void(GlooOptions&)> change;
  };
  const Case cases[] = {
      {"size is 0", [](GlooOptions& o) { o.size = 0; }},
      {"size is 65", [](GlooOptions& o) { o.size = 65; }},
      {"rank 2 of 2", [](GlooOptions& o) { o.rank = 2; }},
      {"rank -1 of 2", [](GlooOptions& o) { o.rank = -1; }},
      {"frame_bytes is 100", [](GlooOptions& o) { o.frame_bytes = 100; }},
      {"num_frames is 1", [](GlooOptions& o) { o.num_frames = 1; }},
      {"timeout is 0", [](GlooOptions& o) { o.timeout = absl::ZeroDuration(); }},
      {"timeout is inf", [](GlooOptions& o) { o.timeout = absl::InfiniteDuration(); }},
      {"one of", [](GlooOptions& o) { o.interface = ""; }},
      {"one of", [](GlooOptions& o) { o.hostname = "localhost"; }},
      {"nowhere0", [](GlooOptions& o) { o.interface = "nowhere0"; }},
      {"256.0.0.1", [](GlooOptions& o) { o.interface = "", o.hostname = "256.0.0.1"; }},
  };
  const TempDir directory;
  FileRendezvous store(directory.path());
  for (const Case& test : cases) {
    GlooOptions options;
    options.size = 2;
    options.interface = "lo";
    test.change(options);
    const absl::Status status = GlooCommunicator::Connect(options, store).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), test.word)) << status;
  }
}

TEST(GlooCommunicatorTest, GivesUpOnARankThatNeverComes) {
  const TempDir directory;
  FileRendezvous store(directory.path());
  GlooOptions options;
  options.size = 2;
  options.hostname = "127.0.0.1";
  options.timeout = absl::Milliseconds(100);
  const absl::Status status = GlooCommunicator::Connect(options, store).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

TEST(GlooCommunicatorTest, GivesUpOnAPeerThatIsSilent) {
  SharedWords words;
  GroupSizes sizes;
  sizes.timeout = absl::Seconds(2);  // of which connecting has its share too
  Group(Transport::kGloo, 2, sizes).Run([&](Communicator& comm) {
    if (comm.rank() == 1) return words.Await(0, 1);
    char byte = 0;
    comm.Recv(DenseTensor(&byte, DType::kI8, 1, 1), 1);
    EXPECT_TRUE(absl::IsDeadlineExceeded(comm.status())) << comm.status();
    EXPECT_TRUE(absl::StrContains(comm.status().message(), "rank 1")) << comm.status();
    words[0] = 1;
  });
}

// What was sent arrives also when the sender has gone; what was not, is an error that names the rank.
TEST(GlooCommunicatorTest, NamesAPeerThatHasGone) {
  SharedWords words;
  Group group(Transport::kGloo, 2);
  std::thread leaves([&] {
    std::unique_ptr<Communicator> comm = group.Join(1);
    char byte = 'x';
    comm->Send(DenseTensor(&byte, DType::kI8, 1, 1), 0);
    words.Await(0, 1);
    comm = nullptr;
    words[1] = 1;
  });
  const std::unique_ptr<Communicator> comm = group.Join(0);
  char byte = 0;
  comm->Recv(DenseTensor(&byte, DType::kI8, 1, 1), 1);
  EXPECT_EQ(byte, 'x');
  words[0] = 1;
  words.Await(1, 1);
  comm->Recv(DenseTensor(&byte, DType::kI8, 1, 1), 1);
  EXPECT_TRUE(absl::IsUnavailable(comm->status())) << comm->status();
  EXPECT_TRUE(absl::StrContains(comm->status().message(), "rank 1")) << comm->status();
  leaves.join();
}

// Writing to a connection whose other end is gone raises SIGPIPE, which must not end this process.
TEST(GlooCommunicatorTest, OutlivesAPeerThatIsKilled) {
  Group group(Transport::kGloo, 2);
  const pid_t victim = StartProcess([&] {
    const std::unique_ptr<Communicator> comm = group.Join(1);
    char byte = 0;
    comm->Recv(DenseTensor(&byte, DType::kI8, 1, 1), 0);
    raise(SIGKILL);
  });
  const pid_t survivor = StartProcess([&] {
    const std::unique_ptr<Communicator> comm = group.Join(0);
    char byte = 'x';
    while (comm->status().ok()) comm->Send(DenseTensor(&byte, DType::kI8, 1, 1), 1);
    EXPECT_TRUE(absl::IsUnavailable(comm->status())) << comm->status();
  });
  EXPECT_TRUE(WIFSIGNALED(AwaitProcess(victim)));
  EXPECT_EQ(AwaitProcess(survivor), 0);
}

TEST(GlooCommunicatorTest, HandsTheReasonOn) {
  SharedWords words;
  Group(Transport::kGloo, 3).Run([&](Communicator& comm) {
    if (comm.rank() == 2) comm.Abort(absl::DataLossError("rank 2's own words"));
    float x = 1;
    comm.AllReduceSum(DenseTensor(&x, DType::kF32, 1, 1));
    EXPECT_FALSE(comm.status().ok());
    words[0] += absl::StrContains(comm.status().message(), "rank 2's own words") ? 1 : 0;
  });
  EXPECT_GE(words[0].load(), 1) << "others hear it unless the connection closes first";
}

}  // namespace
}  // namespace weft
