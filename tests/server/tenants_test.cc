// Tenants over real sockets, with everything behind them but a model: who they are, what they may, what they are told.
#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "server/authenticator.h"
#include "server/http_server.h"
#include "server/json_parse.h"
#include "server/memory_budget.h"
#include "tests/server/fake_serving.h"
#include "tests/server/raw_http_client.h"

namespace weft {
namespace {

// printf %s sk-one | sha256sum
constexpr char kKeys[] = "team 456f1612bd25c6c8455039437bf441f43aa3b7d1c0b0047c712d5036dfebef0d\n";
constexpr char kShort[] = R"({"prompt":[1,2,3],"seed":7,"max_tokens":4})";

std::string Post(const std::string& headers, absl::string_view body) {
  return absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n", headers,
                      "Content-Length: ", body.size(), "\r\n\r\n", body);
}

std::string From(absl::string_view tenant) { return absl::StrCat("X-LLM-D-Inference-Fairness-ID: ", tenant, "\r\n"); }

class TenantsTest : public testing::Test {
 protected:
  void Start(const FakeServingOptions& serving, bool trust_gateway = true) {
    serving_ = std::make_unique<FakeServing>(serving);
    auth_ = std::make_unique<Authenticator>(trust_gateway);
    HttpOptions options;
    options.port = 0;
    HttpDeps deps{serving_->metrics, request_bytes_, [] { return HealthState{Health::kReady, "", 1}; }, auth_.get()};
    auto server = HttpServer::Start(options, std::move(deps));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    server_->AttachService(*serving_->service);
  }

  RawResponse Ask(const std::string& headers, absl::string_view body = kShort) {
    RawHttpClient client(server_->port());
    client.Send(Post(headers, body));
    return client.Receive();
  }

  // A request that stays in the queue, as the replica was not started.
  void Queue(const std::string& headers, absl::string_view body = kShort) {
    const int before = serving_->queue.size();
    waiting_.push_back(std::make_unique<RawHttpClient>(server_->port()));
    waiting_.back()->Send(Post(headers, body));
    for (int i = 0; i < 2000 && serving_->queue.size() == before; ++i) absl::SleepFor(absl::Milliseconds(5));
    EXPECT_GT(serving_->queue.size(), before);
  }

  QueueStats::Tenant TenantStats(const std::string& name) const {
    for (const QueueStats::Tenant& tenant : serving_->queue.stats().tenants) {
      if (tenant.name == name) return tenant;
    }
    return {};
  }

  MemoryBudget request_bytes_{1 << 20};
  std::unique_ptr<FakeServing> serving_;
  std::unique_ptr<Authenticator> auth_;
  std::unique_ptr<HttpServer> server_;  // stops before the service goes
  std::vector<std::unique_ptr<RawHttpClient>> waiting_;
};

void ExpectRefusal(const RawResponse& response, int status, const std::string& code, const std::string& param = "") {
  EXPECT_EQ(response.status, status) << response.head;
  const auto json = ParseJson(response.body);
  ASSERT_TRUE(json.ok()) << response.body;
  EXPECT_EQ((*json)["error"].value("code", "none"), code);
  if (!param.empty()) {
    EXPECT_EQ((*json)["error"].value("param", "none"), param);
  }
  if (status != 429) return;
  int seconds = 0;
  EXPECT_TRUE(absl::SimpleAtoi(response.Header("retry-after"), &seconds)) << response.head;
  EXPECT_GE(seconds, 1);
  EXPECT_LE(seconds, 60);
}

TenantPolicies Policies(const TenantPolicy& others) { return {.others = others, .named = {}}; }

TEST_F(TenantsTest, ACapOnTheQueueIsEachTenantsOwn) {
  Start({.start_replica = false, .policies = {.others = {.max_queued = 2}, .named = {{"a", {.max_queued = 2}}}}});
  Queue(From("a"));
  Queue(From("a"));
  ExpectRefusal(Ask(From("a")), 429, "tenant_rate_limited");
  ExpectRefusal(Ask(From("b"), R"({"prompt":"x","n":3})"), 400, "out_of_range", "n");
  Queue(From("b"));
  ExpectRefusal(Ask(From("b"), R"({"prompt":"x","n":2})"), 429, "tenant_rate_limited");
  EXPECT_EQ(TenantStats("a").num_waiting[1], 2);
  EXPECT_EQ(TenantStats("b").num_waiting[1], 1);
  EXPECT_EQ(MetricValue(serving_->metrics, R"(weft_queue_requests{tenant="a",priority="normal"})"), 2);
  EXPECT_EQ(MetricValue(serving_->metrics, R"(weft_requests_rejected_total{code="tenant_rate_limited"})"), 2);
}

TEST_F(TenantsTest, ACapOnTokensAMinuteIsKeptByRefusing) {
  Start({.policies = Policies({.max_tokens_per_minute = 20})});
  EXPECT_EQ(Ask(From("a"), R"({"prompt":[1,2,3],"max_tokens":40})").status, 200) << "and runs into debt";
  const RawResponse refused = Ask(From("a"));
  ExpectRefusal(refused, 429, "tenant_rate_limited");
  int seconds = 0;
  ASSERT_TRUE(absl::SimpleAtoi(refused.Header("retry-after"), &seconds));
  EXPECT_GT(seconds, 30) << "43 tokens were taken of 20, which makes more than a minute";
  EXPECT_EQ(Ask(From("b")).status, 200);
}

TEST_F(TenantsTest, ACapOnRunningMakesTheOthersWait) {
  Start({.start_replica = false, .policies = {.others = {}, .named = {{"a", {.max_running = 1}}}}});
  for (const char* tenant : {"a", "a", "a", "b", "b"}) Queue(From(tenant));
  Replica& replica = *serving_->replicas[0];
  replica.PullWork();
  EXPECT_EQ(TenantStats("b").num_running, 2) << "there are rows for all";
  for (int64_t num_waiting = 2; replica.HasWork(); num_waiting = TenantStats("a").num_waiting[1]) {
    EXPECT_EQ(TenantStats("a").num_running, 1);
    EXPECT_EQ(TenantStats("a").num_waiting[1], num_waiting);
    serving_->Turn();
    replica.PullWork();
  }
  for (const auto& client : waiting_) EXPECT_EQ(client->Receive().status, 200);
}

TEST_F(TenantsTest, TheWholeQueueHasABoundAndLeavesRoomForOtherTenants) {
  Start({.max_queued_requests = 4, .leave_room = true, .start_replica = false});
  Queue(From("a"));
  Queue(From("a"));
  ExpectRefusal(Ask(From("a")), 429, "server_overloaded");
  Queue(From("b"));
  Queue(From("c"));
  ExpectRefusal(Ask(From("d")), 429, "server_overloaded");
}

// So that at ten times what fits nobody who is refused waits for what the accepted need.
TEST_F(TenantsTest, RefusesBeforeABodyIsParsed) {
  Start({.max_queued_requests = 1, .start_replica = false});
  ExpectRefusal(Ask("", "no JSON"), 400, "invalid_json");
  Queue("");
  ExpectRefusal(Ask("", "no JSON"), 429, "server_overloaded");
}

TEST_F(TenantsTest, ARequestMayAskForTheTenantsHighestPriorityButNotMore) {
  TenantPolicies policies;
  policies.named["plain"] = {};
  policies.named["lower"] = {.priority = Priority::kLow};
  policies.named["vip"] = {.priority = Priority::kHigh, .max_priority = Priority::kHigh};
  Start({.start_replica = false, .policies = policies});
  const auto body = [](absl::string_view priority) {
    return absl::StrCat(R"({"prompt":[1],"priority":)", priority, "}");
  };
  ExpectRefusal(Ask(From("plain"), body(R"("high")")), 403, "forbidden", "priority");
  ExpectRefusal(Ask(From("plain"), body("-1")), 403, "forbidden", "priority");
  ExpectRefusal(Ask(From("vip"), body("-2")), 400, "out_of_range", "priority");
  ExpectRefusal(Ask(From("vip"), body("[]")), 400, "wrong_type", "priority");
  Queue(From("plain"));
  Queue(From("plain"), body("1"));
  Queue(From("lower"));
  Queue(From("lower"), body("0"));
  Queue(From("vip"));
  Queue(From("vip"), body(R"("normal")"));
  using Classes = std::array<int64_t, 3>;  // low, normal, high
  EXPECT_EQ(TenantStats("plain").num_waiting, (Classes{1, 1, 0}));
  EXPECT_EQ(TenantStats("lower").num_waiting, (Classes{1, 1, 0}));
  EXPECT_EQ(TenantStats("vip").num_waiting, (Classes{0, 1, 1}));
}

TEST_F(TenantsTest, OnlyATrustedGatewayNamesTenants) {
  Start({.start_replica = false}, /*trust_gateway=*/false);
  auth_->SetKeys(std::make_shared<const KeyStore>(*KeyStore::Parse(kKeys)));
  const std::string key = "Authorization: Bearer sk-one\r\n";
  Queue(key + From("rich"));
  Queue(key + From("not a name"));
  EXPECT_EQ(TenantStats("team").num_waiting[1], 2);
  EXPECT_EQ(TenantStats("rich").num_waiting[1], 0);
}

TEST_F(TenantsTest, ATrustedGatewaysNameTakesThePlaceOfTheKeysTenant) {
  Start({.start_replica = false});
  auth_->SetKeys(std::make_shared<const KeyStore>(*KeyStore::Parse(kKeys)));
  const std::string key = "Authorization: Bearer sk-one\r\n";
  Queue(key);
  Queue(key + From("rich"));
  EXPECT_EQ(TenantStats("team").num_waiting[1], 1);
  EXPECT_EQ(TenantStats("rich").num_waiting[1], 1);
  ExpectRefusal(Ask(From("rich")), 401, "invalid_api_key");
  for (const std::string& name : {std::string(), std::string("a b"), std::string(65, 'a'), std::string("\xC3\xA9")}) {
    ExpectRefusal(Ask(key + From(name)), 400, "out_of_range", "x-llm-d-inference-fairness-id");
  }
  ExpectRefusal(Ask(key + From("a") + From("b")), 400, "out_of_range", "x-llm-d-inference-fairness-id");
}

TEST_F(TenantsTest, ADeadlineThatPassesInTheQueueIs504) {
  Start({.start_replica = false});
  RawHttpClient client(server_->port());
  client.Send(Post("X-Request-Timeout: 0.05\r\n", kShort));
  ExpectRefusal(client.Receive(), 504, "timeout");
  ExpectRefusal(Ask("X-Request-Timeout: 0.000000001\r\n"), 504, "timeout");
}

TEST_F(TenantsTest, WhoWouldWaitTooLongIsRefusedAtOnce) {
  Start({.start_replica = false, .max_ttft = absl::Seconds(2)});
  // 100 prompt tokens and ten sequences a second.
  for (int i = 0; i < 50; ++i) {
    serving_->queue.service_rate().Observe(0, {.took = absl::Seconds(1), .num_prompt_tokens = 100, .num_finished = 10});
  }
  const std::string fits = absl::StrCat(R"({"prompt":")", std::string(100, 'x'), R"(","max_tokens":1})");
  std::string ids = "1";
  for (int i = 1; i < 250; ++i) ids += ",1";
  const RawResponse refused = Ask("", absl::StrCat(R"({"prompt":[)", ids, R"(],"max_tokens":1})"));
  ExpectRefusal(refused, 429, "server_overloaded");
  EXPECT_TRUE(absl::StrContains(refused.body, "first token")) << refused.body;
  Queue("", fits);
  EXPECT_EQ(serving_->queue.size(), 1);
}

TEST_F(TenantsTest, AStreamGoesOnWhereItsReplicaDied) {
  Start({.start_replica = false, .num_replicas = 2, .steps_to_live = {15}});
  Queue("", R"({"prompt":[1,2,3],"seed":7,"max_tokens":60,"stream":true})");
  RawHttpClient& client = *waiting_.front();
  serving_->replicas[0]->Start();
  serving_->replicas[0]->Join();
  RawResponse response = client.ReceiveHead();
  ASSERT_EQ(response.status, 200);
  ASSERT_TRUE(client.ReceiveChunk(response.body)) << "it had begun";
  serving_->replicas[1]->Start();
  while (client.ReceiveChunk(response.body)) {
  }
  std::string text;
  for (absl::string_view event : absl::StrSplit(response.body, "\n\n")) {
    if (!absl::ConsumePrefix(&event, "data: {")) continue;
    const auto json = ParseJson(absl::StrCat("{", event));
    ASSERT_TRUE(json.ok()) << event;
    text += (*json)["choices"][0].value("text", "");
  }
  EXPECT_EQ(text, serving_->ExpectedText({1, 2, 3}, 7, 60));
}

}  // namespace
}  // namespace weft
