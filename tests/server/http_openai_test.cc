// The OpenAI API over real sockets, with everything behind it but a model.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "server/api_error.h"
#include "server/http_limits.h"
#include "server/http_server.h"
#include "server/json_parse.h"
#include "server/memory_budget.h"
#include "tests/server/fake_serving.h"
#include "tests/server/raw_http_client.h"

namespace weft {
namespace {

std::string Post(absl::string_view path, absl::string_view body) {
  return absl::StrCat("POST ", path,
                      " HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ", body.size(),
                      "\r\n\r\n", body);
}

class HttpOpenAiTest : public testing::Test {
 protected:
  void Start(const FakeServingOptions& serving = {}, HttpOptions options = {}) {
    serving_ = std::make_unique<FakeServing>(serving);
    options.port = 0;
    HttpDeps deps{serving_->metrics, request_bytes_, [] { return HealthState{Health::kReady, "", 1}; }};
    auto server = HttpServer::Start(options, std::move(deps));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    server_->AttachService(*serving_->service);
  }

  RawResponse AskRaw(const std::string& request) {
    RawHttpClient client(server_->port());
    client.Send(request);
    return client.Receive();
  }

  RawResponse Ask(absl::string_view path, absl::string_view body) { return AskRaw(Post(path, body)); }

  RawResponse Complete(absl::string_view body) { return Ask("/v1/completions", body); }

  // Whether the number of generations becomes `count` soon.
  bool BecomesActive(int64_t count) {
    for (int i = 0; i < 2000 && serving_->service->num_active() != count; ++i) absl::SleepFor(absl::Milliseconds(5));
    return serving_->service->num_active() == count;
  }

  MemoryBudget request_bytes_{1 << 20};
  std::unique_ptr<FakeServing> serving_;
  std::unique_ptr<HttpServer> server_;  // stops before the service goes
};

Json Body(const RawResponse& response) {
  const auto json = ParseJson(response.body);
  EXPECT_TRUE(json.ok()) << response.head << response.body;
  return json.ok() ? *json : Json::object();
}

std::string CodeOf(const RawResponse& response) { return Body(response)["error"].value("code", "none"); }

// The events of a stream, which must end as every stream does.
std::vector<Json> Events(const RawResponse& response) {
  std::vector<std::string> parts = absl::StrSplit(response.body, "\n\n");
  EXPECT_GE(parts.size(), 2u) << response.body;
  if (parts.size() < 2) return {};
  EXPECT_EQ(parts.back(), "");
  EXPECT_EQ(parts[parts.size() - 2], "data: [DONE]");
  std::vector<Json> events;
  for (size_t i = 0; i + 2 < parts.size(); ++i) {
    if (absl::StartsWith(parts[i], ":")) continue;
    EXPECT_TRUE(absl::StartsWith(parts[i], "data: {")) << parts[i];
    events.push_back(*ParseJson(absl::string_view(parts[i]).substr(6)));
  }
  return events;
}

constexpr char kThirtyTokens[] = R"({"prompt":[1,2,3],"seed":7,"max_tokens":30)";

TEST_F(HttpOpenAiTest, AnswersWholeWithTheTextThatWasDrawn) {
  Start();
  const RawResponse response = Complete(absl::StrCat(kThirtyTokens, R"(,"model":"alias"})"));
  ASSERT_EQ(response.status, 200) << response.body;
  const Json json = Body(response);
  EXPECT_EQ(json["model"], "alias");
  EXPECT_EQ(json["choices"][0]["text"], serving_->ExpectedText({1, 2, 3}, 7, 30));
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(json["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(json["usage"]["completion_tokens"], 30);
}

TEST_F(HttpOpenAiTest, StreamsTheSameTextInChunks) {
  Start();
  RawHttpClient client(server_->port());
  const std::string body = absl::StrCat(kThirtyTokens, R"(,"stream":true,"stream_options":{"include_usage":true}})");
  for (int round = 0; round < 2; ++round) {  // the connection goes on after a stream
    client.Send(Post("/v1/completions", body));
    const RawResponse response = client.Receive();
    ASSERT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(response.Header("content-type"), "text/event-stream");
    EXPECT_EQ(response.Header("cache-control"), "no-cache");
    EXPECT_EQ(response.Header("x-accel-buffering"), "no");
    const std::vector<Json> events = Events(response);
    ASSERT_GE(events.size(), 3u);
    std::string text;
    for (size_t i = 0; i + 2 < events.size(); ++i) {
      text += events[i]["choices"][0]["text"].get<std::string>();
      EXPECT_TRUE(events[i]["choices"][0]["finish_reason"].is_null());
      EXPECT_TRUE(events[i]["usage"].is_null());
      EXPECT_EQ(events[i]["id"], events[0]["id"]);
    }
    EXPECT_EQ(text, serving_->ExpectedText({1, 2, 3}, 7, 30));
    EXPECT_EQ(events[events.size() - 2]["choices"][0]["finish_reason"], "length");
    EXPECT_TRUE(events.back()["choices"].empty());
    EXPECT_EQ(events.back()["usage"]["completion_tokens"], 30);
  }
}

TEST_F(HttpOpenAiTest, StreamsChatWithARoleFirstForEachChoice) {
  Start();
  const RawResponse response = Ask(
      "/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}],"n":2,"stream":true,"max_tokens":20})");
  ASSERT_EQ(response.status, 200) << response.body;
  std::vector<std::vector<Json>> choices(2);
  for (const Json& event : Events(response)) {
    EXPECT_FALSE(event.contains("usage"));
    const Json& choice = event["choices"][0];
    choices[choice["index"].get<size_t>()].push_back(choice);
  }
  for (const std::vector<Json>& chunks : choices) {
    ASSERT_GE(chunks.size(), 3u);
    EXPECT_EQ(chunks.front()["delta"]["role"], "assistant");
    for (size_t i = 1; i + 1 < chunks.size(); ++i) EXPECT_FALSE(chunks[i]["delta"]["content"].empty());
    EXPECT_TRUE(chunks.back()["delta"].empty());
    EXPECT_EQ(chunks.back()["finish_reason"], "length");
  }
}

TEST_F(HttpOpenAiTest, NumbersChoicesPromptByPrompt) {
  Start();
  const Json json = Body(Complete(R"({"prompt":[[1,2],[3,4]],"n":2,"seed":7,"max_tokens":10})"));
  ASSERT_EQ(json["choices"].size(), 4u) << json;
  for (int i = 0; i < 4; ++i) {
    const std::vector<int32_t> prompt = i < 2 ? std::vector<int32_t>{1, 2} : std::vector<int32_t>{3, 4};
    EXPECT_EQ(json["choices"][i]["index"], i);
    EXPECT_EQ(json["choices"][i]["text"], serving_->ExpectedText(prompt, 7, 10, i % 2));
  }
  EXPECT_EQ(json["usage"]["prompt_tokens"], 4);
  EXPECT_EQ(json["usage"]["completion_tokens"], 40);
}

TEST_F(HttpOpenAiTest, RefusesBeforeTheStreamBegins) {
  Start();
  const struct {
    std::string body;
    int status;
    std::string code, param;
  } cases[] = {
      {R"({"prompt":"a","stream":true,"model":"../../x"})", 404, "model_not_found", "model"},
      {R"({"prompt":"a","stream":true,"top_p":1.5})", 400, "out_of_range", "top_p"},
      {R"({"prompt":"a","stream":true,"n":1000000000})", 400, "out_of_range", "n"},
      {R"({"prompt":[906],"stream":true})", 400, "invalid_token_id", "prompt"},
      {R"({"prompt":"a","stream":true,"max_tokens":100000})", 400, "context_length_exceeded", "max_tokens"},
      {R"({"prompt":"a","stream":true,)", 400, "invalid_json", ""},
  };
  for (const auto& c : cases) {
    const RawResponse response = Complete(c.body);
    EXPECT_EQ(response.status, c.status) << c.body;
    EXPECT_EQ(CodeOf(response), c.code) << c.body;
    if (!c.param.empty()) {
      EXPECT_EQ(Body(response)["error"]["param"], c.param) << c.body;
    }
  }
}

TEST_F(HttpOpenAiTest, TellsToComeBackWhenFullOrDraining) {
  Start({.max_queued_requests = 1, .start_replica = false});
  RawHttpClient waiting(server_->port());
  waiting.Send(Post("/v1/completions", R"({"prompt":"a"})"));
  ASSERT_TRUE(BecomesActive(1));
  RawResponse response = Complete(R"({"prompt":"a","stream":true})");
  EXPECT_EQ(response.status, 429) << response.body;
  EXPECT_FALSE(response.Header("retry-after").empty());
  serving_->service->StopAccepting();
  response = Complete(R"({"prompt":"a","stream":true})");
  EXPECT_EQ(response.status, 503) << response.body;
  EXPECT_FALSE(response.Header("retry-after").empty());
}

TEST_F(HttpOpenAiTest, AClientThatLeavesEndsItsGeneration) {
  Start({.start_replica = false});  // nothing is ever written to the client
  for (const bool stream : {false, true}) {
    for (const bool reset : {false, true}) {
      auto client = std::make_unique<RawHttpClient>(server_->port());
      client->Send(Post("/v1/completions", absl::StrCat(R"({"prompt":"a","stream":)", stream ? "true}" : "false}")));
      client->Send("GET /live HTTP/1.1\r\n");  // pipelined bytes don't hide it
      ASSERT_TRUE(BecomesActive(1));
      if (reset) client->Reset();
      client.reset();
      EXPECT_TRUE(BecomesActive(0)) << "stream " << stream << ", reset " << reset;
    }
  }
}

TEST_F(HttpOpenAiTest, AClientThatPipelinesMuchAndLeavesEndsItsGeneration) {
  Start({.start_replica = false});
  auto client = std::make_unique<RawHttpClient>(server_->port());
  client->Send(Post("/v1/completions", R"({"prompt":"a"})"));
  ASSERT_TRUE(BecomesActive(1));
  client->Send(std::string(kMaxInputBytes + 20000, 'x'));  // more than is read, no more than the kernel takes
  client.reset();
  EXPECT_TRUE(BecomesActive(0));
}

TEST_F(HttpOpenAiTest, CountsWhatItRefuses) {
  Start();
  EXPECT_EQ(Complete(R"({"prompt":"a","n":99})").status, 400);
  EXPECT_EQ(Complete(R"({"prompt":7})").status, 400);
  EXPECT_EQ(Ask("/nowhere", "{}").status, 404);
  const std::string series = "weft_requests_rejected_total";
  EXPECT_EQ(MetricValue(serving_->metrics, series + R"({code="out_of_range"})"), 1);
  EXPECT_EQ(MetricValue(serving_->metrics, series + R"({code="wrong_type"})"), 1);
  EXPECT_EQ(MetricValue(serving_->metrics, series + R"({code="not_found"})"), 1);
}

TEST_F(HttpOpenAiTest, CommentsKeepASilentStreamAliveAndItsFailureIsAnEvent) {
  HttpOptions options;
  options.keep_alive_interval = absl::Milliseconds(30);
  Start({.start_replica = false}, options);
  RawHttpClient client(server_->port());
  client.Send(Post("/v1/completions", R"({"prompt":"a","stream":true})"));
  RawResponse response = client.ReceiveHead();
  EXPECT_EQ(response.status, 200);
  for (int i = 0; i < 2; ++i) {
    std::string chunk;
    ASSERT_TRUE(client.ReceiveChunk(chunk));
    EXPECT_EQ(chunk, ": keep-alive\n\n");
  }
  serving_->service->CancelAll(ApiError(absl::StatusCode::kUnavailable, "replica_lost", "", "The engine died."));
  while (client.ReceiveChunk(response.body)) {
  }
  const std::vector<Json> events = Events(response);
  ASSERT_EQ(events.size(), 1u) << response.body;
  EXPECT_EQ(events[0]["error"]["code"], "replica_lost");
}

TEST_F(HttpOpenAiTest, AFailureBeforeTheFirstTokenHasItsOwnStatus) {
  Start({.start_replica = false});
  for (const absl::string_view body :
       {R"({"prompt":"a","stream":true})", R"({"prompt":"a","stream":true,"echo":true,"logprobs":1})"}) {
    RawHttpClient client(server_->port());
    client.Send(Post("/v1/completions", body));
    ASSERT_TRUE(BecomesActive(1));
    serving_->service->CancelAll(ApiError(absl::StatusCode::kUnavailable, "replica_lost", "", "The engine died."));
    const RawResponse response = client.Receive();
    EXPECT_EQ(response.status, 503) << response.head;
    EXPECT_EQ(CodeOf(response), "replica_lost");
  }
}

TEST_F(HttpOpenAiTest, ADeadlineEndsARequest) {
  Start({.start_replica = false});
  const std::string whole = R"({"prompt":"a"})", stream = R"({"prompt":"a","stream":true})";
  const auto ask = [this](absl::string_view timeout, const std::string& body) {
    return AskRaw(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n",
                               "X-Request-Timeout: ", timeout, "\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
  };
  for (const std::string& body : {whole, stream}) {
    const RawResponse late = ask("0.05", body);
    EXPECT_EQ(late.status, 504) << late.head;
    EXPECT_EQ(CodeOf(late), "timeout");
    EXPECT_TRUE(BecomesActive(0));
  }
  for (const absl::string_view bad : {"0", "-1", "nan", "1e9", "soon"}) EXPECT_EQ(ask(bad, whole).status, 400) << bad;
}

TEST_F(HttpOpenAiTest, GivesTheBodysBytesBackWhileItStreams) {
  Start({.start_replica = false});
  RawHttpClient client(server_->port());
  client.Send(Post("/v1/completions",
                   absl::StrCat(R"({"prompt":"a","stream":true,"user2":")", std::string(100'000, 'x'), "\"}")));
  ASSERT_TRUE(BecomesActive(1));
  for (int i = 0; i < 2000 && request_bytes_.used_bytes() > 0; ++i) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(request_bytes_.used_bytes(), 0);
  EXPECT_EQ(serving_->service->num_active(), 1);
}

TEST_F(HttpOpenAiTest, ServesOldClientsWithAStreamThatEndsTheConnection) {
  Start();
  RawHttpClient client(server_->port());
  const std::string body = absl::StrCat(kThirtyTokens, R"(,"stream":true})");
  client.Send(absl::StrCat("POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: ",
                           body.size(), "\r\n\r\n", body));
  const RawResponse head = client.ReceiveHead();
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.Header("transfer-encoding"), "");
  EXPECT_EQ(head.Header("connection"), "close");
}

TEST_F(HttpOpenAiTest, DescribesTheModelUnderEachOfItsNames) {
  Start();
  const auto get = [this](absl::string_view path) {
    RawHttpClient client(server_->port());
    client.Send(absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: a\r\n\r\n"));
    return client.Receive();
  };
  const Json list = Body(get("/v1/models"));
  ASSERT_EQ(list["data"].size(), 2u);
  EXPECT_EQ(list["data"][0]["id"], "fake");
  EXPECT_EQ(list["data"][0]["root"], "/models/fake");
  EXPECT_EQ(list["data"][0]["max_model_len"], 256);
  EXPECT_EQ(Body(get("/v1/models/al%69as"))["id"], "alias");
  EXPECT_EQ(CodeOf(get("/v1/models/other")), "model_not_found");
}

TEST_F(HttpOpenAiTest, TokenizesAndBack) {
  Start();
  const Json tokens =
      Body(Ask("/tokenize", R"({"prompt":"hello you","add_special_tokens":false,"return_token_strs":true})"));
  EXPECT_EQ(tokens["count"], tokens["tokens"].size());
  EXPECT_EQ(tokens["count"], tokens["token_strs"].size());
  EXPECT_EQ(Body(Ask("/detokenize", absl::StrCat("{\"tokens\":", tokens["tokens"].dump(), "}")))["prompt"],
            "hello you");
  EXPECT_GT(Body(Ask("/tokenize", R"({"messages":[{"role":"user","content":"hello"}]})"))["count"], 0);
  EXPECT_EQ(CodeOf(Ask("/detokenize", R"({"tokens":[100000]})")), "invalid_token_id");
  EXPECT_EQ(CodeOf(Ask("/tokenize", R"({"prompt":"a","model":"other"})")), "model_not_found");
}

}  // namespace
}  // namespace weft
