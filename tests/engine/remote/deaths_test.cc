// What an engine says of workers that are killed, stopped, or wrong.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/engine/remote/children.h"
#include "tests/engine/remote/remote_model.h"
#include "tests/fakes/temp_dir.h"

namespace weft {
namespace {

// Steps until one fails, which some must within seconds.
absl::Status StepUntilDeath(Engine& engine) {
  for (int64_t step = 0; step < 64; ++step) {
    engine.Submit(OneTokenStep(step));
    if (const auto result = engine.Collect(); !result.ok()) return result.status();
    absl::SleepFor(absl::Milliseconds(20));
  }
  return absl::OkStatus();
}

TEST(DeathsTest, AKilledWorkerIsNamedAndNobodyIsToBlame) {
  RemoteModel model({"llama3", {.tensor = 2}});
  const auto engine = *model.engines().Open(0);
  const std::vector<pid_t> workers = Children();
  ASSERT_EQ(workers.size(), 2u);
  kill(workers[1], SIGKILL);
  const absl::Status death = StepUntilDeath(*engine);
  EXPECT_EQ(death.code(), absl::StatusCode::kUnavailable) << death;
  EXPECT_TRUE(absl::StrContains(death.message(), "rank 1")) << death;
  EXPECT_TRUE(absl::StrContains(death.message(), "signal 9")) << death;
  EXPECT_EQ(engine->status(), death) << "later calls fail likewise";
}

TEST(DeathsTest, ACrashMayBeTheBatchsFault) {
  RemoteModel model({"llama3", {}});
  const auto engine = *model.engines().Open(0);
  kill(Children().front(), SIGSEGV);
  EXPECT_EQ(StepUntilDeath(*engine).code(), absl::StatusCode::kInternal);
}

TEST(DeathsTest, IsNoticedWhileNothingRuns) {
  RemoteModel model({"llama3", {}});
  absl::Notification told;
  model.engines().SetOnDeath([&told] {
    if (!told.HasBeenNotified()) told.Notify();
  });
  const auto engine = *model.engines().Open(0);
  EXPECT_TRUE(engine->status().ok());
  kill(Children().front(), SIGKILL);
  EXPECT_TRUE(told.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_EQ(engine->status().code(), absl::StatusCode::kUnavailable);
  model.engines().SetOnDeath(nullptr);
}

TEST(DeathsTest, AStoppedWorkerIsNamedByTheWatchdog) {
  RemoteModel model({"llama3", {.tensor = 2}}, 1, absl::Milliseconds(300));
  const auto engine = *model.engines().Open(0);
  for (int64_t step = 0; step < 5; ++step) {
    engine->Submit(OneTokenStep(step));
    ASSERT_TRUE(engine->Collect().ok());
  }
  kill(Children()[1], SIGSTOP);
  absl::SleepFor(absl::Milliseconds(1200));  // so that it has been silent
  const absl::Time start = absl::Now();
  const absl::Status death = StepUntilDeath(*engine);
  EXPECT_LT(absl::Now() - start, absl::Seconds(30));
  EXPECT_EQ(death.code(), absl::StatusCode::kUnavailable) << death;
  EXPECT_TRUE(absl::StrContains(death.message(), "rank 1 (process")) << death;
  EXPECT_TRUE(absl::StrContains(death.message(), "has not been heard of")) << death;
  EXPECT_TRUE(absl::StrContains(death.message(), "AllReduceSum")) << death;
}

TEST(DeathsTest, WorkersThatAnswerGarbageEndTheEngine) {
  for (const auto& [fault, code] : {std::pair("garbage_result", absl::StatusCode::kInternal),
                                    {"too_few_tokens", absl::StatusCode::kUnavailable},
                                    {"other_step", absl::StatusCode::kUnavailable},
                                    {"garbage_message", absl::StatusCode::kUnavailable},
                                    {"hello_again", absl::StatusCode::kUnavailable},
                                    {"flood", absl::StatusCode::kUnavailable}}) {
    const WorkerFault wrong(fault);
    RemoteModel model({"llama3", {}});
    const auto engine = model.engines().Open(0);
    ASSERT_TRUE(engine.ok()) << engine.status();
    EXPECT_EQ(StepUntilDeath(**engine).code(), code) << fault;
  }
}

TEST(DeathsTest, AWorkerThatLivesAndDoesNotAnswerIsHung) {
  const WorkerFault wrong("silent");
  RemoteModel model({"llama3", {}}, 1, absl::Milliseconds(50));
  const auto engine = *model.engines().Open(0);
  EXPECT_TRUE(absl::StrContains(StepUntilDeath(*engine).message(), "has taken more than"));
}

TEST(DeathsTest, WorkersThatNobodyExpectsAreTurnedAway) {
  for (const auto& [fault, says] : {std::pair("foreign_version", "version other"),
                                    {"foreign_token", "nobody expects"},
                                    {"no_hello", "doesn't say who it is"}}) {
    const WorkerFault wrong(fault);
    RemoteModel model({"llama3", {}});
    const auto engine = model.engines().Open(0);
    EXPECT_FALSE(engine.ok()) << fault;
    EXPECT_TRUE(absl::StrContains(model.Log(), says)) << fault << ": " << model.Log();
  }
}

TEST(DeathsTest, WorkersMustSayWhatTheyHaveLoadedInTheirTurn) {
  for (const auto& [fault, code] :
       {std::pair("no_digests", absl::StatusCode::kInternal), {"ready_first", absl::StatusCode::kUnavailable}}) {
    const WorkerFault wrong(fault);
    RemoteModel model({"llama3", {}});
    EXPECT_EQ(model.engines().Open(0).status().code(), code) << fault;
  }
}

TEST(DeathsTest, ReplicasThatLoadOtherWeightsAreRefusedByTensor) {
  const TempDir dir;
  std::filesystem::copy(FixtureModel("llama3"), dir.path(), std::filesystem::copy_options::recursive);
  RemoteModel model({"llama3", {}}, 2, absl::Seconds(10), dir.path());
  const auto first = model.engines().Open(0);
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string file = dir.path() + "/model.safetensors";
  std::string bytes = ReadAll(file);
  bytes[bytes.size() - 2] ^= 1;  // of the last tensor
  std::ofstream(file, std::ios::binary) << bytes;
  const absl::Status status = model.engines().Open(1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "rank 0: ")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), ".weight")) << status;
}

TEST(DeathsTest, AWorkerThatHasAnotherConfigRefuses) {
  const TempDir dir;
  std::filesystem::copy(FixtureModel("llama3"), dir.path(), std::filesystem::copy_options::recursive);
  RemoteModel model({"llama3", {}}, 1, absl::Seconds(10), dir.path());
  std::ofstream(dir.path() + "/config.json", std::ios::app) << "\n";  // the same model, but who knows?
  const absl::Status status = model.engines().Open(0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "config.json is not what the server has")) << status;
}

TEST(DeathsTest, AWorkerThatSaysNothingIsTurnedAway) {
  const WorkerFault wrong("no_word");
  RemoteModel model({"llama3", {}});
  EXPECT_FALSE(model.engines().Open(0).ok());
  EXPECT_TRUE(absl::StrContains(model.Log(), "it says nothing")) << model.Log();
}

TEST(DeathsTest, AWorkerThatEndsWhileItLoadsEndsTheStart) {
  const WorkerFault wrong("exit_in_load");
  RemoteModel model({"llama3", {.tensor = 2}});
  const auto engine = model.engines().Open(0);
  EXPECT_TRUE(absl::StrContains(engine.status().message(), "exited with status 3")) << engine.status();
}

TEST(DeathsTest, CancelEndsAStart) {
  const WorkerFault wrong("silent_in_load");
  RemoteModel model({"llama3", {}});
  absl::Status status;
  std::thread opener([&] { status = model.engines().Open(0).status(); });
  while (Children().empty()) std::this_thread::yield();
  model.engines().Cancel();
  opener.join();
  EXPECT_TRUE(absl::StrContains(status.message(), "the server stops")) << status;
  EXPECT_EQ(model.engines().Open(0).status().code(), absl::StatusCode::kCancelled) << "and all to come";
}

// Its handles are its own: a client's connection, say, must not stay open because a worker has it too.
TEST(DeathsTest, AWorkerInheritsItsSharedMemoryAlone) {
  const int fd = open("/dev/null", O_RDONLY);  // without O_CLOEXEC, as libraries open files
  RemoteModel model({"llama3", {.tensor = 2}});
  const auto engine = *model.engines().Open(0);
  int num_memories = 0;
  for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat("/proc/", Children()[0], "/fd"))) {
    std::error_code gone;
    const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
    const int number = std::stoi(entry.path().filename().string());
    EXPECT_FALSE(number > 2 && target == "/dev/null") << number;
    num_memories += absl::StrContains(target, "memfd:weft");
  }
  EXPECT_EQ(num_memories, 1);
  close(fd);
}

TEST(DeathsTest, NoWorkerOutlivesItsEngine) {
  {
    RemoteModel model({"llama3", {.tensor = 2, .pipeline = 2}});
    const auto engine = *model.engines().Open(0);
    EXPECT_EQ(Children().size(), 4u);
  }
  EXPECT_TRUE(Children().empty());
}

}  // namespace
}  // namespace weft
