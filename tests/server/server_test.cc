// The whole server with engines that die: what goes on, what ends, and what operators see of it.
#include "server/server.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "server/exit_status.h"
#include "server/json_parse.h"
#include "tests/server/fake_serving.h"
#include "tests/server/raw_http_client.h"

namespace weft {
namespace {

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}

std::string Get(absl::string_view path) { return absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: a\r\n\r\n"); }

std::string Complete(absl::string_view body) {
  return absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ",
                      body.size(), "\r\n\r\n", body);
}

// Opens engines that are killed after so many steps, or waits until it is cancelled.
class MortalSource final : public EngineSource {
 public:
  // next_steps_to_live: of every engine but a replica's first; none: there is no other.
  MortalSource(const EngineLimits& limits, std::optional<int64_t> next_steps_to_live)
      : limits_(limits), next_steps_to_live_(next_steps_to_live) {}

  const EngineLimits& limits() const override { return limits_; }
  absl::StatusOr<std::unique_ptr<Engine>> Open(int) override {
    if (next_steps_to_live_.has_value()) {
      return std::make_unique<MortalEngine>(limits_, *next_steps_to_live_, absl::UnavailableError("killed"));
    }
    cancelled_.WaitForNotification();
    return absl::CancelledError("the source is closed");
  }
  void Cancel() override { cancelled_.Notify(); }
  void SetOnDeath(std::function<void()>) override {}

 private:
  const EngineLimits limits_;
  const std::optional<int64_t> next_steps_to_live_;
  absl::Notification cancelled_;
};

struct Lives {
  std::vector<int64_t> steps_to_live;         // of each replica's first engine
  std::optional<int64_t> next_steps_to_live;  // of each one after it, see MortalSource
  int restart_limit = 1;                      // who dies stays dead
};

class ServerTest : public testing::Test {
 protected:
#ifdef __SANITIZE_THREAD__
  void SetUp() override { GTEST_SKIP() << "has gRPC in it, see grpc_test.cc"; }
#endif

  void Start(const Lives& lives) {
    Config config;
    config.http.port = FreePort();
    config.grpc.port = 0;
    config.engine.replicas = static_cast<int>(lives.steps_to_live.size());
    config.engine.restarts = {.limit = lives.restart_limit, .backoff = absl::Milliseconds(1)};
    port_ = config.http.port;
    const auto load = [lives](const Config&, const LoadingProgress&) -> absl::StatusOr<ServedModel> {
      ServedModel model;
      model.info = {.names = {"fake"}, .max_model_len = kLimits.max_model_len, .vocab_size = kLimits.vocab_size};
      model.tokenizer = *Tokenizer::Load(WEFT_SOURCE_DIR "/tests/fixtures/tokenizers/llama3");
      model.engine_source = std::make_unique<MortalSource>(kLimits, lives.next_steps_to_live);
      for (const int64_t steps : lives.steps_to_live) {
        model.engines.push_back(std::make_unique<MortalEngine>(kLimits, steps));
      }
      return model;
    };
    thread_ = std::thread([this, config, load] { exit_status_ = Server(config, load).Run(); });
    for (int i = 0; i < 1000 && Ask(Get("/ready")).status != 200; ++i) absl::SleepFor(absl::Milliseconds(5));
  }

  int Stop() {
    kill(getpid(), SIGTERM);
    return Join();
  }
  int Join() {
    thread_.join();
    return exit_status_;
  }

  RawResponse Ask(const std::string& request) {
    RawHttpClient client(port_);
    client.Send(request);
    return client.Receive();
  }

  // Within some seconds.
  bool ReadyBecomes(int status) {
    for (int i = 0; i < 2000; ++i) {
      if (Ask(Get("/ready")).status == status) return true;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return false;
  }

  bool Shows(absl::string_view line) { return absl::StrContains(Ask(Get("/metrics")).body, absl::StrCat(line, "\n")); }

  static constexpr EngineLimits kLimits = {.max_model_len = 256,
                                           .num_blocks = 64,
                                           .block_size = 16,
                                           .max_num_seqs = 8,
                                           .max_num_batched_tokens = 64,
                                           .vocab_size = FakeServing::kVocabSize};
  int port_ = 0;
  int exit_status_ = -1;
  std::thread thread_;
};

constexpr int64_t kForever = int64_t{1} << 60;

TEST_F(ServerTest, GoesOnWithoutAReplicaThatDied) {
  Start({.steps_to_live = {100, kForever}});
  EXPECT_TRUE(Shows("weft_replica_up{replica=\"0\"} 1"));
  EXPECT_EQ(Ask(Get("/health")).body, "");
  const std::unique_ptr<Tokenizer> tokenizer = *Tokenizer::Load(WEFT_SOURCE_DIR "/tests/fixtures/tokenizers/llama3");
  for (int round = 0; round < 200 && Ask(Get("/health")).body.empty(); ++round) {
    std::vector<std::unique_ptr<RawHttpClient>> clients;
    for (int i = 0; i < 12; ++i) {  // more than one replica runs at once
      clients.push_back(std::make_unique<RawHttpClient>(port_));
      clients.back()->Send(Complete(absl::StrCat(R"({"prompt":[)", i, R"(],"seed":7,"max_tokens":60})")));
    }
    for (int i = 0; i < 12; ++i) {
      const RawResponse response = clients[static_cast<size_t>(i)]->Receive();
      ASSERT_EQ(response.status, 200) << response.body;
      const std::vector<int32_t> drawn = FakeEngine::ExpectedTokens({i}, {.seed = 7}, kLimits.vocab_size, 60);
      EXPECT_EQ((*ParseJson(response.body))["choices"][0]["text"], tokenizer->Decode(drawn, /*skip_special=*/true));
    }
  }
  EXPECT_TRUE(Shows("weft_replica_up{replica=\"0\"} 0"));
  EXPECT_TRUE(Shows("weft_replica_up{replica=\"1\"} 1"));
  EXPECT_EQ(Ask(Get("/ready")).status, 200);
  const RawResponse health = Ask(Get("/health"));
  EXPECT_EQ(health.status, 200);
  EXPECT_TRUE(absl::StrContains(health.body, "1 of 2 replicas are up")) << health.body;
  EXPECT_TRUE(Shows("weft_replica_crash_looping{replica=\"0\"} 1"));
  EXPECT_EQ(Stop(), kExitOk);
}

TEST_F(ServerTest, RefusesEverythingOnceAllReplicasAreInACrashLoop) {
  Start({.steps_to_live = {0, 0}});
  const RawResponse lost = Ask(Complete(R"({"prompt":[1],"seed":7,"max_tokens":200})"));
  // Both died of their first step, with nothing but this request in it.
  EXPECT_EQ(lost.status, 500) << lost.body;
  EXPECT_TRUE(absl::StrContains(lost.body, "request_caused_failure")) << lost.body;
  EXPECT_TRUE(ReadyBecomes(503));
  EXPECT_TRUE(absl::StrContains(Ask(Get("/ready")).body, "crash loop"));
  for (int i = 0; i < 2000 && Ask(Get("/live")).status == 200; ++i) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(Ask(Get("/live")).status, 503);
  const RawResponse refused = Ask(Complete(R"({"prompt":[1],"seed":7,"max_tokens":200})"));
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_TRUE(absl::StrContains(refused.body, "replica_lost")) << refused.body;
  EXPECT_EQ(Stop(), kExitEngineDied);
}

TEST_F(ServerTest, TellsThoseWhoWaitThatTheOnlyReplicaIsLost) {
  Start({.steps_to_live = {10}});
  const RawResponse lost = Ask(Complete(R"({"prompt":[1],"seed":7,"max_tokens":200})"));
  EXPECT_EQ(lost.status, 503) << lost.body;
  EXPECT_TRUE(absl::StrContains(lost.body, "replica_lost")) << lost.body;
  EXPECT_EQ(Stop(), kExitEngineDied);
}

TEST_F(ServerTest, AStreamOutlivesTheOnlyReplicaAgainAndAgain) {
  Start({.steps_to_live = {20}, .next_steps_to_live = 20, .restart_limit = 1000});
  const RawResponse response = Ask(Complete(R"({"prompt":[1],"seed":7,"max_tokens":200})"));
  ASSERT_EQ(response.status, 200) << response.body;
  const std::unique_ptr<Tokenizer> tokenizer = *Tokenizer::Load(WEFT_SOURCE_DIR "/tests/fixtures/tokenizers/llama3");
  const std::vector<int32_t> drawn = FakeEngine::ExpectedTokens({1}, {.seed = 7}, kLimits.vocab_size, 200);
  EXPECT_EQ((*ParseJson(response.body))["choices"][0]["text"], tokenizer->Decode(drawn, /*skip_special=*/true));
  EXPECT_FALSE(Shows("weft_replica_restarts_total{replica=\"0\"} 0"));
  EXPECT_TRUE(ReadyBecomes(200));
  EXPECT_EQ(Stop(), kExitOk);
}

TEST_F(ServerTest, WaitsForARestartUpToTheDeadline) {
  Start({.steps_to_live = {10}, .next_steps_to_live = std::nullopt, .restart_limit = 1000});
  const std::string body = R"({"prompt":[1],"seed":7,"max_tokens":200})";
  const RawResponse late =
      Ask(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n",
                       "x-request-timeout: 0.3\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
  EXPECT_EQ(late.status, 504) << late.body;
  EXPECT_TRUE(ReadyBecomes(503));
  EXPECT_TRUE(absl::StrContains(Ask(Get("/ready")).body, "recovering"));
  EXPECT_EQ(Ask(Get("/live")).status, 200);
  EXPECT_EQ(Stop(), kExitOk);
}

}  // namespace
}  // namespace weft
