#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/grpc_server.h"
#include "tests/server/fake_serving.h"
#include "weft/v1/inference.grpc.pb.h"

namespace weft {
namespace {

// A key "secret" of tenant "team"; its digest is SHA-256("secret").
constexpr char kKeys[] = "team 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n";

std::string TrailingWord(const grpc::ClientContext& context, const char* key) {
  const auto& metadata = context.GetServerTrailingMetadata();
  const auto found = metadata.find(key);
  return found == metadata.end() ? "" : std::string(found->second.data(), found->second.size());
}

class GrpcTest : public testing::Test {
 protected:
#ifdef __SANITIZE_THREAD__
  void SetUp() override {
    GTEST_SKIP()
        << "the distribution's gRPC is not built for ThreadSanitizer, which takes its threads' own hand-overs for "
           "races; without this skip, look for reports whose first frames are Weft's";
  }
#endif

  void Start(const Authenticator* auth = nullptr, bool attach = true) {
    Config config;
    config.grpc.port = 0;
    config.grpc.max_message_bytes = 64 << 10;
    auto server =
        GrpcServer::Start(config, {.metrics = serving_.metrics, .request_bytes = request_bytes_, .auth = auth});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    if (attach) server_->AttachService(*serving_.service);
    stub_ = v1::Inference::NewStub(
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()), grpc::InsecureChannelCredentials()));
  }

  struct Answer {
    grpc::Status status;
    std::string code;
    std::vector<v1::GenerateResponse> messages;
    std::string text;  // of choice 0
  };
  Answer Generate(const v1::GenerateRequest& request, grpc::ClientContext& context) {
    Answer answer;
    const auto stream = stub_->Generate(&context, request);
    v1::GenerateResponse message;
    while (stream->Read(&message)) {
      answer.messages.push_back(message);
      if (message.index() == 0) answer.text += message.text();
    }
    answer.status = stream->Finish();
    answer.code = TrailingWord(context, "weft-error-code");
    return answer;
  }
  Answer Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    return Generate(request, context);
  }

  static v1::GenerateRequest Request(std::vector<int32_t> ids, int64_t max_tokens) {
    v1::GenerateRequest request;
    request.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
    request.set_max_tokens(max_tokens);
    request.set_seed(7);
    return request;
  }

  FakeServing serving_;
  Authenticator auth_;
  MemoryBudget request_bytes_{1 << 20};
  std::unique_ptr<GrpcServer> server_;  // stops before the service goes
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(GrpcTest, StreamsWhatTheEngineDraws) {
  Start();
  const Answer answer = Generate(Request({1, 2, 3}, 30));
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text, serving_.ExpectedText({1, 2, 3}, 7, 30));
  EXPECT_EQ(answer.messages.back().finish().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(answer.messages.back().usage().prompt_tokens(), 3);
  EXPECT_EQ(answer.messages.back().usage().completion_tokens(), 30);
  EXPECT_EQ(MetricValue(serving_.metrics, "weft_grpc_responses_total{code=\"0\"}"), 1);
}

TEST_F(GrpcTest, EveryChoiceEndsOnceAndUsageComesLast) {
  Start();
  v1::GenerateRequest request = Request({4}, 12);
  request.set_n(3);
  request.set_logprobs(0);
  const Answer answer = Generate(request);
  ASSERT_TRUE(answer.status.ok());
  std::vector<int> finishes(3);
  std::vector<int> logprobs(3);
  for (const v1::GenerateResponse& message : answer.messages) {
    finishes.at(static_cast<size_t>(message.index())) += message.has_finish() ? 1 : 0;
    logprobs.at(static_cast<size_t>(message.index())) += message.logprobs_size();
    EXPECT_EQ(message.has_usage(), &message == &answer.messages.back());
  }
  EXPECT_EQ(finishes, (std::vector<int>{1, 1, 1}));
  EXPECT_EQ(logprobs, (std::vector<int>{12, 12, 12}));
}

TEST_F(GrpcTest, ChatsWithTools) {
  Start();
  v1::GenerateRequest request;
  request.set_max_tokens(2);
  v1::ChatMessage& message = *request.mutable_chat()->add_messages();
  message.set_role("user");
  message.set_content("hello");
  request.mutable_chat()->set_tools_json(R"([{"type":"function","function":{"name":"f","parameters":{}}}])");
  EXPECT_TRUE(Generate(request).status.ok());
  request.mutable_chat()->set_tools_json(std::string(40000, '['));
  EXPECT_EQ(Generate(request).code, "json_too_deep");
  request.mutable_chat()->clear_tools_json();
  message.set_role("nobody");
  EXPECT_EQ(Generate(request).code, "unsupported_content");
  request.mutable_chat()->clear_messages();
  EXPECT_EQ(Generate(request).code, "empty");
}

TEST_F(GrpcTest, RefusalsHaveStatusAndCode) {
  Start();
  struct Case {
    grpc::StatusCode status;
    const char* code;
    const char* param;
    void (*set)(v1::GenerateRequest&);
  };
  const std::vector<Case> cases = {
      {grpc::INVALID_ARGUMENT, "missing_field", "prompt", [](auto& r) { r.clear_token_ids(); }},
      {grpc::INVALID_ARGUMENT, "empty", "prompt", [](auto& r) { r.mutable_token_ids()->clear_ids(); }},
      {grpc::INVALID_ARGUMENT, "out_of_range", "temperature", [](auto& r) { r.set_temperature(std::stod("nan")); }},
      {grpc::INVALID_ARGUMENT, "out_of_range", "n", [](auto& r) { r.set_n(1000000000); }},
      {grpc::INVALID_ARGUMENT, "out_of_range", "max_tokens", [](auto& r) { r.set_max_tokens(0); }},
      {grpc::INVALID_ARGUMENT, "invalid_token_id", "prompt", [](auto& r) { r.mutable_token_ids()->add_ids(-1); }},
      {grpc::INVALID_ARGUMENT, "context_length_exceeded", "max_tokens", [](auto& r) { r.set_max_tokens(100000); }},
      {grpc::NOT_FOUND, "model_not_found", "model", [](auto& r) { r.set_model("other"); }},
  };
  for (const Case& c : cases) {
    v1::GenerateRequest request = Request({1}, 4);
    c.set(request);
    grpc::ClientContext context;
    const Answer answer = Generate(request, context);
    EXPECT_EQ(answer.status.error_code(), c.status) << c.code;
    EXPECT_EQ(answer.code, c.code);
    EXPECT_EQ(TrailingWord(context, "weft-error-param"), c.param);
    EXPECT_TRUE(answer.messages.empty());
  }
  v1::GenerateRequest big;
  big.set_text(std::string(128 << 10, 'x'));
  EXPECT_EQ(Generate(big).status.error_code(), grpc::RESOURCE_EXHAUSTED);
}

TEST_F(GrpcTest, AsksForAKey) {
  auth_.SetKeys(std::make_shared<const KeyStore>(*KeyStore::Parse(kKeys)));
  Start(&auth_);
  for (const auto& [header, allowed] : std::vector<std::pair<std::string, bool>>{
           {"", false}, {"Bearer wrong", false}, {"Basic secret", false}, {"Bearer secret", true}}) {
    grpc::ClientContext context;
    if (!header.empty()) context.AddMetadata("authorization", header);
    const Answer answer = Generate(Request({1}, 2), context);
    EXPECT_EQ(answer.status.error_code(), allowed ? grpc::OK : grpc::UNAUTHENTICATED) << header;
    EXPECT_EQ(answer.code, allowed ? "" : "invalid_api_key");
  }
  grpc::ClientContext context;
  v1::GetModelResponse model;
  EXPECT_EQ(stub_->GetModel(&context, {}, &model).error_code(), grpc::UNAUTHENTICATED);
}

TEST_F(GrpcTest, ARequestMayAskForTheTenantsHighestPriorityButNotMore) {
  Start();
  v1::GenerateRequest request = Request({1}, 2);
  for (const v1::Priority priority : {v1::PRIORITY_UNSPECIFIED, v1::PRIORITY_LOW, v1::PRIORITY_NORMAL}) {
    request.set_priority(priority);
    EXPECT_TRUE(Generate(request).status.ok()) << priority;
  }
  request.set_priority(v1::PRIORITY_HIGH);
  grpc::ClientContext too_high;
  const Answer denied = Generate(request, too_high);
  EXPECT_EQ(denied.status.error_code(), grpc::PERMISSION_DENIED);
  EXPECT_EQ(denied.code, "forbidden");
  EXPECT_EQ(TrailingWord(too_high, "weft-error-param"), "priority");
  request.set_priority(static_cast<v1::Priority>(9));
  grpc::ClientContext unknown;
  EXPECT_EQ(Generate(request, unknown).code, "out_of_range");
  EXPECT_EQ(TrailingWord(unknown, "weft-error-param"), "priority");
}

TEST_F(GrpcTest, OnlyATrustedGatewayNamesTenantsAndEachHasItsCaps) {
  TenantPolicies policies;
  policies.named["limited"].max_tokens_per_minute = 1;
  serving_.queue.SetPolicies(std::make_shared<const TenantPolicies>(policies));
  for (const bool trusts : {false, true}) {
    const Authenticator auth(trusts);
    Start(&auth);
    const auto ask = [this](const std::string& tenant, grpc::ClientContext& context) {
      context.AddMetadata("x-llm-d-inference-fairness-id", tenant);
      return Generate(Request({1}, 2), context);
    };
    grpc::ClientContext first, second, other, wrong;
    EXPECT_TRUE(ask("limited", first).status.ok());
    const Answer refused = ask("limited", second);
    EXPECT_EQ(refused.status.error_code(), trusts ? grpc::RESOURCE_EXHAUSTED : grpc::OK);
    EXPECT_EQ(refused.code, trusts ? "tenant_rate_limited" : "");
    EXPECT_EQ(TrailingWord(second, "grpc-retry-pushback-ms").empty(), !trusts);
    EXPECT_TRUE(ask("another", other).status.ok());
    EXPECT_EQ(ask("not a name", wrong).code, trusts ? "out_of_range" : "");
    EXPECT_EQ(TrailingWord(wrong, "weft-error-param"), trusts ? "x-llm-d-inference-fairness-id" : "");
    server_.reset();  // before who it asks
  }
}

TEST_F(GrpcTest, TellsToRetryUntilTheModelIsThereAndWhenItGoes) {
  Start(nullptr, /*attach=*/false);
  EXPECT_EQ(Generate(Request({1}, 2)).code, "not_ready");
  server_->AttachService(*serving_.service);
  EXPECT_TRUE(Generate(Request({1}, 2)).status.ok());
  serving_.service->StopAccepting();
  grpc::ClientContext context;
  const Answer answer = Generate(Request({1}, 2), context);
  EXPECT_EQ(answer.status.error_code(), grpc::UNAVAILABLE);
  EXPECT_EQ(answer.code, "draining");
  EXPECT_FALSE(TrailingWord(context, "grpc-retry-pushback-ms").empty());
}

TEST_F(GrpcTest, ACancelledCallEndsItsGeneration) {
  Start();
  for (const bool after_first : {false, true}) {
    grpc::ClientContext context;
    const auto stream = stub_->Generate(&context, Request({1}, 250));
    v1::GenerateResponse message;
    if (after_first) {
      EXPECT_TRUE(stream->Read(&message));
    }
    context.TryCancel();
    while (stream->Read(&message)) {
    }
    EXPECT_EQ(stream->Finish().error_code(), grpc::CANCELLED);
    EXPECT_TRUE(serving_.service->WaitUntilIdle(absl::Seconds(20)));
  }
}

TEST_F(GrpcTest, AClientThatLeavesFreesItsBlocksAndDisturbsNobody) {
  FakeServing by_hand({.start_replica = false});
  Start(nullptr, /*attach=*/false);
  server_->AttachService(*by_hand.service);
  const Replica& replica = *by_hand.replicas[0];
  grpc::ClientContext stays, leaves;
  const auto kept = stub_->Generate(&stays, Request({1}, 200));
  const auto left = stub_->Generate(&leaves, Request({2}, 200));
  while (by_hand.queue.size() < 2) absl::SleepFor(absl::Milliseconds(1));
  for (int turn = 0; turn < 20; ++turn) by_hand.Turn();
  EXPECT_EQ(replica.stats().num_free_blocks, FakeServing::kNumBlocks - 4) << "two each";
  v1::GenerateResponse message;
  EXPECT_TRUE(left->Read(&message));
  leaves.TryCancel();
  while (by_hand.service->num_active() > 1) absl::SleepFor(absl::Milliseconds(1));
  for (int turn = 0; turn < 2; ++turn) by_hand.Turn();
  EXPECT_EQ(replica.stats().num_running, 1);
  EXPECT_EQ(replica.stats().num_free_blocks, FakeServing::kNumBlocks - 2);
  while (replica.HasWork()) by_hand.Turn();
  std::string text;
  while (kept->Read(&message)) text += message.text();
  EXPECT_TRUE(kept->Finish().ok());
  EXPECT_EQ(text, by_hand.ExpectedText({1}, 7, 200));
  EXPECT_EQ(left->Finish().error_code(), grpc::CANCELLED);
  server_.reset();  // before its service
}

TEST_F(GrpcTest, BoundsTheBytesOfAllMessagesTogether) {
  Start();
  MemoryBudget::Hold others(request_bytes_);
  ASSERT_TRUE(others.Grow((1 << 20) + MemoryBudget::kFreeBytes));  // all there is
  v1::GenerateRequest large = Request({1}, 5);
  large.add_stop(std::string(40'000, 'x'));
  const Answer full = Generate(large);
  EXPECT_EQ(full.status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(full.code, "server_overloaded");
  v1::TokenizeRequest text;
  text.set_text(std::string(40'000, 'x'));
  v1::TokenizeResponse tokens;
  grpc::ClientContext unary;
  EXPECT_EQ(stub_->Tokenize(&unary, text, &tokens).error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(unary.GetServerInitialMetadata().count("x-request-id"), 1u);
  EXPECT_EQ(MetricValue(serving_.metrics, R"(weft_requests_rejected_total{code="server_overloaded"})"), 2);
  EXPECT_TRUE(Generate(Request({1}, 5)).status.ok()) << "small requests pass";
  others.Release();
  EXPECT_EQ(Generate(large).code, "out_of_range");  // the stop string's length
  EXPECT_EQ(request_bytes_.used_bytes(), 0);
}

TEST_F(GrpcTest, ACallThatIsCutOffEndsInAnError) {
  FakeServing waiting({.start_replica = false});
  Start(nullptr, /*attach=*/false);
  server_->AttachService(*waiting.service);
  grpc::ClientContext context;
  const auto stream = stub_->Generate(&context, Request({1}, 250));
  while (waiting.queue.size() == 0) absl::SleepFor(absl::Milliseconds(1));
  waiting.service->CancelAll();
  v1::GenerateResponse message;
  EXPECT_FALSE(stream->Read(&message));
  EXPECT_EQ(stream->Finish().error_code(), grpc::UNAVAILABLE);
  EXPECT_EQ(TrailingWord(context, "weft-error-code"), "shutting_down");
  server_.reset();  // before its service
}

TEST_F(GrpcTest, ADeadlineEndsACall) {
  Start();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() - std::chrono::seconds(1));
  EXPECT_EQ(Generate(Request({1}, 250), context).status.error_code(), grpc::DEADLINE_EXCEEDED);
  EXPECT_TRUE(serving_.service->WaitUntilIdle(absl::Seconds(20)));
}

TEST_F(GrpcTest, TheRequestIdComesBack) {
  Start();
  grpc::ClientContext named;
  named.AddMetadata("x-request-id", "my-id");
  Generate(Request({1}, 1), named);
  EXPECT_EQ(named.GetServerInitialMetadata().find("x-request-id")->second, "my-id");
  grpc::ClientContext unnamed;
  Generate(Request({1}, 1), unnamed);
  EXPECT_FALSE(unnamed.GetServerInitialMetadata().find("x-request-id")->second.empty());
}

TEST_F(GrpcTest, TokenizesDetokenizesAndShowsTheModel) {
  Start();
  v1::TokenizeRequest text;
  text.set_text("na\xC3\xAFve weft");
  v1::TokenizeResponse tokens;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->Tokenize(&context, text, &tokens).ok());
  }
  v1::DetokenizeRequest ids;
  const auto plain = *serving_.service->Tokenize(text.text(), false);
  ids.mutable_token_ids()->Add(plain.begin(), plain.end());
  v1::DetokenizeResponse back;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->Detokenize(&context, ids, &back).ok());
  }
  EXPECT_EQ(back.text(), text.text());
  EXPECT_GE(tokens.token_ids_size(), ids.token_ids_size());
  v1::GetModelResponse model;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->GetModel(&context, {}, &model).ok());
  EXPECT_EQ(model.names(0), "fake");
  EXPECT_EQ(model.vocab_size(), FakeServing::kVocabSize);
}

TEST_F(GrpcTest, ManyStreamsAtOnce) {
  Start();
  std::vector<std::thread> clients;
  std::vector<std::string> texts(16);
  for (size_t i = 0; i < texts.size(); ++i) {
    clients.emplace_back([this, i, &texts] { texts[i] = Generate(Request({static_cast<int32_t>(i)}, 60)).text; });
  }
  for (std::thread& client : clients) client.join();
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(texts[i], serving_.ExpectedText({static_cast<int32_t>(i)}, 7, 60)) << i;
  }
}

TEST(GrpcServerTest, APortThatIsTakenIsAnError) {
  Metrics metrics;
  MemoryBudget request_bytes(1 << 20);
  Config config;
  config.grpc.port = 0;
  const auto first = GrpcServer::Start(config, {.metrics = metrics, .request_bytes = request_bytes});
  ASSERT_TRUE(first.ok());
  config.grpc.port = (*first)->port();
  EXPECT_FALSE(GrpcServer::Start(config, {.metrics = metrics, .request_bytes = request_bytes}).ok());
}

}  // namespace
}  // namespace weft
