// The HTTP server over real sockets, with routes that need no model: table H, probes, keys, timers, stopping.
#include "server/http_server.h"

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "server/http_routes.h"
#include "server/json_parse.h"
#include "server/memory_budget.h"
#include "tests/server/raw_http_client.h"

namespace weft {
namespace {

class HttpServerTest : public testing::Test {
 protected:
  void Start(HttpOptions options = {}, const Authenticator* auth = nullptr) {
    options.port = 0;
    HttpDeps deps{metrics_, request_bytes_,
                  [this] {
                    return HealthState{health_.load(), "a detail", 0.5, is_impaired_.load()};
                  },
                  auth};
    auto server = HttpServer::Start(options, std::move(deps));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  RawResponse Ask(const std::string& request) {
    RawHttpClient client(server_->port());
    client.Send(request);
    return client.Receive();
  }

  std::string CodeOf(const RawResponse& response) {
    const auto json = ParseJsonObject(response.body);
    return json.ok() ? (*json)["error"]["code"].get<std::string>() : "no JSON: " + response.body;
  }

  Metrics metrics_;
  MemoryBudget request_bytes_{1 << 20};
  std::atomic<Health> health_{Health::kReady};
  std::atomic<bool> is_impaired_{false};
  Authenticator auth_;
  std::unique_ptr<HttpServer> server_;
};

std::string Get(absl::string_view path, absl::string_view headers = "") {
  return absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: a\r\n", headers, "\r\n");
}

std::string Post(absl::string_view headers, absl::string_view body = "") {
  return absl::StrCat("POST /tokenize HTTP/1.1\r\nHost: a\r\n", headers, "\r\n", body);
}

std::string JsonPost(absl::string_view headers, absl::string_view body = "") {
  return Post(absl::StrCat("Content-Type: application/json\r\n", headers), body);
}

std::string OneByteChunks(int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += "1\r\na\r\n";
  return out;
}

constexpr char kChunked[] = "Transfer-Encoding: chunked\r\n";

TEST_F(HttpServerTest, AnswersEachRequestOfTheCatalogueAndLives) {
  Start();
  const struct {
    std::string request;
    int status;
    std::string code;  // empty: no error body
    bool closes;
  } cases[] = {
      {Get("/live"), 200, "", false},
      {Get("http://x/live"), 200, "", false},
      {Get("/live?a=b"), 200, "", false},
      {"\r\n" + Get("/live"), 200, "", false},
      {Get("/live", "Connection: close\r\n"), 200, "", true},
      {"GET /live HTTP/1.0\r\n\r\n", 200, "", true},
      {Get("/live", "Upgrade: h2c\r\nConnection: Upgrade\r\n"), 200, "", false},
      {Get("/live", "Content-Length: 3\r\n") + "abc", 200, "", false},
      {std::string("\x16\x03\x01\x02\x00\x01\xFC\x03\x03", 9), 400, "bad_request", true},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version", true},
      {absl::StrCat("GET /", std::string(1 << 20, 'a'), " HTTP/1.1\r\n"), 414, "uri_too_long", true},
      {Get("/live", absl::StrCat("x: ", std::string(1 << 20, 'a'), "\r\n")), 431, "headers_too_large", true},
      {Get("/live", "Host: b\r\n"), 400, "bad_request", true},
      {JsonPost("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "{}"), 400, "bad_request", true},
      {JsonPost("Content-Length: 2\r\nContent-Length: 3\r\n", "{}"), 400, "bad_request", true},
      // Paths and methods
      {Get("/"), 404, "not_found", false},
      {Get("//v1/models"), 404, "not_found", false},
      {Get("/v1/../live"), 404, "not_found", false},
      {Get("/v1/%2e%2e/live"), 404, "not_found", false},
      {Get("/V1/models"), 404, "not_found", false},
      {Get("/live;a=b"), 404, "not_found", false},
      {Get("/live/"), 404, "not_found", false},
      {Get("/v1/models/"), 404, "not_found", false},
      {Get("/v1/chat/completions"), 405, "method_not_allowed", false},
      {"OPTIONS /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed", false},
      {"TRACE /live HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed", false},
      {"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 404, "not_found", false},
      // Bodies
      {JsonPost(""), 411, "length_required", false},
      {Post("Content-Length: 2\r\n", "{}"), 415, "unsupported_media_type", true},
      {Post("Content-Type: text/plain\r\nContent-Length: 2\r\n", "{}"), 415, "unsupported_media_type", true},
      {Post("Content-Type: application/json; charset=utf-16\r\nContent-Length: 2\r\n", "{}"), 415,
       "unsupported_media_type", true},
      {JsonPost("Content-Encoding: gzip\r\nContent-Length: 2\r\n", "{}"), 415, "unsupported_media_type", true},
      {JsonPost("Expect: a-miracle\r\nContent-Length: 2\r\n", "{}"), 417, "expectation_failed", true},
      {JsonPost("Expect: 100-continue\r\nContent-Length: 9437184\r\n"), 413, "request_too_large", true},
      {JsonPost("Content-Length: 8388609\r\n"), 413, "request_too_large", true},
      {JsonPost(kChunked, "FFFFFFFFFFFFFFFFF\r\n"), 400, "bad_request", true},
      {JsonPost(kChunked, "z\r\n"), 400, "bad_request", true},
      {JsonPost(kChunked, "800001\r\n"), 413, "request_too_large", true},
      {JsonPost(kChunked, OneByteChunks(65537)), 413, "too_many_chunks", true},
      {JsonPost(kChunked, absl::StrCat("1;", std::string(1 << 20, 'x'), "\r\na\r\n0\r\n\r\n")), 400, "bad_request",
       true},
      {JsonPost(kChunked, absl::StrCat("0\r\nx: ", std::string(1 << 20, 'x'), "\r\n\r\n")), 400, "bad_request", true},
      // Bodies that are read, for a model that isn't there
      {JsonPost("Content-Length: 2\r\n", "{}"), 503, "not_ready", false},
      {Post("Content-Type: Application/JSON; charset=\"UTF-8\"\r\nContent-Length: 2\r\n", "{}"), 503, "not_ready",
       false},
      {JsonPost(kChunked, "1\r\n{\r\n1;x=y\r\n}\r\n0\r\nTrailer: x\r\n\r\n"), 503, "not_ready", false},
      {Get("/v1/models"), 503, "not_ready", false},
  };
  for (const auto& c : cases) {
    RawHttpClient client(server_->port());
    client.Send(c.request);
    const RawResponse response = client.Receive();
    const std::string shown = c.request.substr(0, 100);
    EXPECT_EQ(response.status, c.status) << shown << response.head;
    if (!c.code.empty()) {
      EXPECT_EQ(CodeOf(response), c.code) << shown;
    }
    EXPECT_FALSE(response.Header("x-request-id").empty()) << shown;
    if (c.closes) {
      EXPECT_EQ(response.Header("connection"), "close") << shown;
      EXPECT_TRUE(client.SeesClose()) << shown;
    } else {
      client.Send(Get("/live"));
      EXPECT_EQ(client.Receive().status, 200) << "the connection goes on after " << shown;
    }
  }
  EXPECT_EQ(Ask(Get("/live")).status, 200);
}

TEST_F(HttpServerTest, NamesTheMethodsThatARouteHas) {
  Start();
  EXPECT_EQ(Ask("DELETE /v1/models HTTP/1.1\r\nHost: a\r\n\r\n").Header("allow"), "GET, HEAD");
  const RawResponse head = Ask("HEAD /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(absl::StartsWith(head.head, "HTTP/1.1 200")) << head.head;
  EXPECT_TRUE(head.body.empty());
}

TEST_F(HttpServerTest, SendsContinueBeforeABodyThatItWants) {
  Start();
  RawHttpClient client(server_->port());
  client.Send(JsonPost("Expect: 100-continue\r\nContent-Length: 2\r\n"));
  EXPECT_EQ(client.Receive().status, 100);
  client.Send("{}");
  EXPECT_EQ(client.Receive().status, 503);
}

TEST_F(HttpServerTest, ServesPipelinedRequestsInOrder) {
  Start();
  RawHttpClient client(server_->port());
  std::string requests;
  for (int i = 0; i < 1000; ++i) requests += Get("/live", absl::StrCat("X-Request-Id: n", i, "\r\n"));
  ASSERT_TRUE(client.Send(requests));
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(client.Receive().Header("x-request-id"), absl::StrCat("n", i));
}

TEST_F(HttpServerTest, ReplacesRequestIdsThatAreNotSafeToRepeat) {
  Start();
  EXPECT_EQ(Ask(Get("/live", "x-request-id: a-B_1.c:/d\r\n")).Header("x-request-id"), "a-B_1.c:/d");
  for (const std::string& id : {std::string(), std::string("a b"), std::string("\xC3\xA9"), std::string(129, 'a')}) {
    const std::string got = Ask(Get("/live", absl::StrCat("x-request-id: ", id, "\r\n"))).Header("x-request-id");
    EXPECT_TRUE(absl::StartsWith(got, "req-")) << got;
  }
}

TEST_F(HttpServerTest, ProbesTellTheServersState) {
  Start();
  const struct {
    Health health;
    int live, ready, health_status;
  } cases[] = {{Health::kLoading, 200, 503, 503},
               {Health::kReady, 200, 200, 200},
               {Health::kDraining, 200, 503, 200},
               {Health::kDead, 503, 503, 503}};
  for (const auto& c : cases) {
    health_ = c.health;
    EXPECT_EQ(Ask(Get("/live")).status, c.live);
    EXPECT_EQ(Ask(Get("/ready")).status, c.ready);
    EXPECT_EQ(Ask(Get("/health")).status, c.health_status);
  }
  health_ = Health::kLoading;
  const RawResponse loading = Ask(Get("/health"));
  EXPECT_EQ((*ParseJson(loading.body))["progress"], 0.5) << loading.body;
  EXPECT_FALSE(loading.Header("retry-after").empty());
  EXPECT_TRUE(Ask(Get("/health")).body.size() > 0);
  health_ = Health::kReady;
  EXPECT_TRUE(Ask(Get("/health")).body.empty());
  is_impaired_ = true;
  EXPECT_EQ((*ParseJson(Ask(Get("/health")).body))["detail"], "a detail");
  EXPECT_EQ(Ask(Get("/ready")).status, 200);
}

TEST_F(HttpServerTest, ShowsMetricsAndVersionWithoutAModel) {
  Start();
  const RawResponse metrics = Ask(Get("/metrics"));
  EXPECT_EQ(metrics.status, 200);
  EXPECT_TRUE(absl::StartsWith(metrics.Header("content-type"), "text/plain"));
  EXPECT_TRUE(absl::StrContains(metrics.body, "weft_num_requests_running")) << metrics.body.substr(0, 500);
  EXPECT_TRUE(ParseJson(Ask(Get("/version")).body)->contains("version"));
}

TEST_F(HttpServerTest, AsksForAKeyOnEveryRouteThatIsNotOpen) {
  // printf %s sk-one | sha256sum
  const auto keys = KeyStore::Parse("a 456f1612bd25c6c8455039437bf441f43aa3b7d1c0b0047c712d5036dfebef0d\n");
  ASSERT_TRUE(keys.ok()) << keys.status();
  auth_.SetKeys(std::make_shared<const KeyStore>(*keys));
  Start({}, &auth_);
  const std::string body_headers = "Content-Type: application/json\r\nContent-Length: 2\r\n";
  const auto ask = [&](const HttpRoute& route, const std::string& path, const std::string& headers) {
    const bool post = route.method == "POST";
    return Ask(absl::StrCat(route.method, " ", path, " HTTP/1.1\r\nHost: a\r\n", headers, post ? body_headers : "",
                            "\r\n", post ? "{}" : ""));
  };
  std::string refusal;
  for (const HttpRoute& route : HttpRoutes()) {
    const std::string path = absl::StrReplaceAll(route.path, {{"{id}", "x"}});
    for (const std::string& headers :
         {std::string(), std::string("Authorization: Bearer sk-two\r\n"),
          std::string("Authorization: Basic sk-one\r\n"), std::string("Cookie: sk-one\r\n"),
          std::string("Authorization: Bearer sk-one\r\nAuthorization: Bearer sk-one\r\n"),
          absl::StrCat("Authorization: Bearer ", std::string(16 << 10, 'k'), "\r\n")}) {
      const RawResponse response = ask(route, absl::StrCat(path, "?api_key=sk-one"), headers);
      if (route.access == HttpAccess::kOpen) {
        EXPECT_EQ(response.status, 200) << path;
        continue;
      }
      EXPECT_EQ(response.status, 401) << path << headers.substr(0, 60);
      EXPECT_EQ(response.Header("www-authenticate"), "Bearer");
      if (refusal.empty()) refusal = response.body;
      EXPECT_EQ(response.body, refusal) << "all wrong keys look alike";
    }
    EXPECT_NE(ask(route, path, "Authorization: Bearer sk-one\r\n").status, 401) << path;
  }
}

TEST_F(HttpServerTest, LetsPagesOfNamedOriginsIn) {
  HttpOptions options;
  options.allowed_origins = {"https://chat.example.com"};
  Start(options);
  const std::string preflight = "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: a\r\nOrigin: ";
  const RawResponse allowed =
      Ask(preflight + "https://chat.example.com\r\nAccess-Control-Request-Method: POST\r\n\r\n");
  EXPECT_EQ(allowed.status, 200);
  EXPECT_EQ(allowed.Header("access-control-allow-origin"), "https://chat.example.com");
  EXPECT_EQ(allowed.Header("access-control-allow-methods"), "POST");
  EXPECT_EQ(allowed.Header("access-control-allow-headers"), "authorization, *");
  EXPECT_EQ(Ask(preflight + "https://evil.example.com\r\n\r\n").status, 405);

  const RawResponse named = Ask(Get("/live", "Origin: https://chat.example.com\r\n"));
  EXPECT_EQ(named.Header("access-control-allow-origin"), "https://chat.example.com");
  EXPECT_EQ(Ask(Get("/live", "Origin: https://evil.example.com\r\n")).Header("access-control-allow-origin"), "");
}

TEST_F(HttpServerTest, BoundsTheBytesOfAllBodiesTogether) {
  Start();
  const std::string part(700'000, ' ');  // two are more than request_bytes_ allows
  const std::string head = JsonPost("Content-Length: 700001\r\n");
  auto first = std::make_unique<RawHttpClient>(server_->port());
  ASSERT_TRUE(first->Send(head + part));
  for (int i = 0; i < 2000 && request_bytes_.used_bytes() < 650'000; ++i) absl::SleepFor(absl::Milliseconds(5));
  const RawResponse full = Ask(head + part + "x");
  EXPECT_EQ(full.status, 429);
  EXPECT_EQ(CodeOf(full), "server_overloaded");
  EXPECT_FALSE(full.Header("retry-after").empty());
  EXPECT_EQ(CodeOf(Ask(JsonPost("Content-Length: 2\r\n", "{}"))), "not_ready") << "small requests pass";
  first.reset();
  for (int i = 0; i < 2000 && request_bytes_.used_bytes() > 0; ++i) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(request_bytes_.used_bytes(), 0);
  EXPECT_EQ(CodeOf(Ask(head + part + "x")), "not_ready");
}

TEST_F(HttpServerTest, CutsOffClientsThatTrickle) {
  HttpOptions options;
  options.header_timeout = absl::Milliseconds(200);
  options.idle_timeout = absl::Milliseconds(300);
  Start(options);
  RawHttpClient head(server_->port()), body(server_->port()), idle(server_->port());
  head.Send("GET /live HT");
  body.Send(JsonPost("Content-Length: 1000000\r\n", "{"));
  EXPECT_EQ(head.Receive().status, 408);
  EXPECT_EQ(body.Receive().status, 408);
  EXPECT_TRUE(idle.SeesClose());
}

TEST_F(HttpServerTest, OutlivesClientsThatLeaveMidway) {
  Start();
  for (int i = 0; i < 20; ++i) {
    RawHttpClient closes(server_->port()), resets(server_->port()), before_answer(server_->port());
    closes.Send(JsonPost("Content-Length: 1000\r\n", "{"));
    resets.Send(JsonPost("Content-Length: 1000\r\n", "{"));
    resets.Reset();
    before_answer.Send(Get("/metrics"));
    before_answer.Reset();
  }
  EXPECT_EQ(Ask(Get("/live")).status, 200);
}

TEST_F(HttpServerTest, RefusesConnectionsBeyondItsCap) {
  HttpOptions options;
  options.max_connections = 2;
  Start(options);
  auto first = std::make_unique<RawHttpClient>(server_->port());
  RawHttpClient second(server_->port());
  first->Send(Get("/live"));
  second.Send(Get("/live"));
  ASSERT_EQ(first->Receive().status, 200);
  ASSERT_EQ(second.Receive().status, 200);
  RawHttpClient third(server_->port());
  EXPECT_EQ(third.Receive().status, 0);
  second.Send(Get("/live"));
  EXPECT_EQ(second.Receive().status, 200) << "those that are there go on";
  first.reset();
  int status = 0;
  for (int i = 0; i < 1000 && status != 200; ++i) status = Ask(Get("/live")).status;
  EXPECT_EQ(status, 200) << "room again";
}

TEST_F(HttpServerTest, CutsOffClientsThatTakeNothing) {
  HttpOptions options;
  options.write_timeout = absl::Milliseconds(100);
  Start(options);
  RawHttpClient client(server_->port());
  constexpr int kRequests = 5000;  // whose answers exceed what the kernel buffers
  std::string requests;
  for (int i = 0; i < kRequests; ++i) requests += Get("/metrics");
  client.Send(requests);
  EXPECT_TRUE(client.AwaitHangUp());
  EXPECT_EQ(Ask(Get("/live")).status, 200);
}

TEST_F(HttpServerTest, DrainsAndStops) {
  Start();
  RawHttpClient busy(server_->port()), idle(server_->port());
  idle.Send(Get("/live"));
  ASSERT_EQ(idle.Receive().Header("connection"), "");
  server_->BeginDrain();
  EXPECT_EQ(Ask(Get("/ready")).status, 503);
  busy.Send(Get("/live"));
  const RawResponse last = busy.Receive();
  EXPECT_EQ(last.status, 200);
  EXPECT_EQ(last.Header("connection"), "close");
  const int port = server_->port();
  const absl::Time begin = absl::Now();
  server_->Stop(absl::Seconds(30));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10)) << "an idle connection is not waited for";
  EXPECT_TRUE(idle.SeesClose());
  EXPECT_FALSE(RawHttpClient(port).connected());
}

TEST(HttpServerStartTest, SaysWhyItCannotListen) {
  Metrics metrics;
  MemoryBudget request_bytes(1 << 20);
  const auto health = [] { return HealthState{}; };
  HttpOptions options;
  options.port = 0;
  const auto first = HttpServer::Start(options, {metrics, request_bytes, health});
  ASSERT_TRUE(first.ok()) << first.status();
  options.port = (*first)->port();
  EXPECT_EQ(HttpServer::Start(options, {metrics, request_bytes, health}).status().code(),
            absl::StatusCode::kUnavailable);
  options.port = 0;
  options.host = "no such host";
  EXPECT_EQ(HttpServer::Start(options, {metrics, request_bytes, health}).status().code(),
            absl::StatusCode::kInvalidArgument);
  options.host = "127.0.0.1";
  options.tls_cert_file = options.tls_key_file = "/nonexistent.pem";
  EXPECT_EQ(HttpServer::Start(options, {metrics, request_bytes, health}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace weft
