// The shapes of answers, as clients of the OpenAI API take them apart.
#include "server/openai_response.h"

#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/api_error.h"
#include "server/http_message.h"

namespace weft {
namespace {

OpenAiAnswerOptions Options(OpenAiApi api, bool logprobs = false, bool include_usage = false) {
  OpenAiAnswerOptions options;
  options.api = api;
  options.model = "m";
  options.fingerprint = "f";
  options.created = absl::FromUnixSeconds(1700000000);
  options.logprobs = logprobs;
  options.include_usage = include_usage;
  return options;
}

Json Parse(const std::string& text) {
  EXPECT_EQ(text.find('\n'), std::string::npos) << "an event is one line";
  const auto json = ParseJson(text);
  EXPECT_TRUE(json.ok()) << text;
  return json.ok() ? *json : Json::object();
}

// What all parts of an answer say alike, taken out so that the rest can be compared.
Json WithoutHead(Json json, absl::string_view object, const OpenAiAnswer& answer) {
  EXPECT_EQ(json["id"], answer.id());
  EXPECT_EQ(json["object"], std::string(object));
  EXPECT_EQ(json["created"], 1700000000);
  EXPECT_EQ(json["model"], "m");
  EXPECT_EQ(json["system_fingerprint"], "f");
  for (const char* key : {"id", "object", "created", "model", "system_fingerprint"}) json.erase(key);
  return json;
}

void ExpectJson(const Json& got, absl::string_view expected) { EXPECT_EQ(got.dump(), ParseJson(expected)->dump()); }

TEST(OpenAiAnswerTest, ChatChunksHaveRoleThenContentThenReason) {
  OpenAiAnswer answer(Options(OpenAiApi::kChat), 1);
  EXPECT_EQ(answer.id().rfind("chatcmpl-", 0), 0u);
  const absl::string_view object = "chat.completion.chunk";
  ExpectJson(
      WithoutHead(Parse(answer.Role(0)), object, answer),
      R"({"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})");
  ExpectJson(
      WithoutHead(Parse(answer.Content(0, "a\n\ndata: [DONE]", {})), object, answer),
      R"({"choices":[{"index":0,"delta":{"content":"a\n\ndata: [DONE]"},"logprobs":null,"finish_reason":null}]})");
  ExpectJson(WithoutHead(Parse(answer.FinishChunk(0, {StopKind::kStop, std::string("END"), {}})), object, answer),
             R"({"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":"END"}]})");
  ExpectJson(WithoutHead(Parse(answer.FinishChunk(0, {StopKind::kLength, {}, {}})), object, answer),
             R"({"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length","stop_reason":null}]})");
}

TEST(OpenAiAnswerTest, UsageComesOnceInAChunkWithoutChoices) {
  OpenAiAnswer answer(Options(OpenAiApi::kCompletion, false, true), 1);
  EXPECT_EQ(answer.id().rfind("cmpl-", 0), 0u);
  ExpectJson(WithoutHead(Parse(answer.Content(0, "a", {})), "text_completion", answer),
             R"({"choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null}],"usage":null})");
  ExpectJson(WithoutHead(Parse(answer.UsageChunk({3, 4, 2})), "text_completion", answer),
             R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,
                 "prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":0}}})");
}

TEST(OpenAiAnswerTest, WholeAnswersHaveEveryChoiceAndTheUsage) {
  OpenAiAnswer chat(Options(OpenAiApi::kChat), 2);
  const std::vector<WholeChoice> choices = {{"a", {}, Finish{StopKind::kStop, int32_t{7}, {}}},
                                            {"b", {}, Finish{StopKind::kLength, {}, {}}}};
  Json json = WithoutHead(Parse(chat.Whole(choices, {1, 2, 0})), "chat.completion", chat);
  EXPECT_EQ(json["usage"]["total_tokens"], 3);
  ExpectJson(
      json["choices"],
      R"([{"index":0,"message":{"role":"assistant","content":"a"},"logprobs":null,"finish_reason":"stop","stop_reason":7},
                 {"index":1,"message":{"role":"assistant","content":"b"},"logprobs":null,"finish_reason":"length","stop_reason":null}])");
  OpenAiAnswer text(Options(OpenAiApi::kCompletion), 2);
  json = WithoutHead(Parse(text.Whole(choices, {})), "text_completion", text);
  EXPECT_EQ(json["choices"][1]["text"], "b");
}

// "é" in two tokens, then "x".
std::vector<GeneratedToken> Tokens() {
  const float infinity = std::numeric_limits<float>::infinity();
  return {{{1, "\xC3", -0.5f}, {{1, "\xC3", -0.5f}, {2, "y", -infinity}}, 0},
          {{3, "\xA9", -1.0f}, {}, 1},
          {{4, "x", -2.0f}, {}, 1}};
}

TEST(OpenAiAnswerTest, ChatLogprobsHaveBytesAndFiniteNumbers) {
  OpenAiAnswer answer(Options(OpenAiApi::kChat, true), 1);
  const Json json = Parse(answer.Content(0, "éx", Tokens()));
  ExpectJson(json["choices"][0]["logprobs"],
             R"({"content":[
               {"token":"bytes:\\xc3","logprob":-0.5,"bytes":[195],"top_logprobs":[
                 {"token":"bytes:\\xc3","logprob":-0.5,"bytes":[195]},{"token":"y","logprob":-9999.0,"bytes":[121]}]},
               {"token":"bytes:\\xa9","logprob":-1.0,"bytes":[169],"top_logprobs":[]},
               {"token":"x","logprob":-2.0,"bytes":[120],"top_logprobs":[]}]})");
}

TEST(OpenAiAnswerTest, CompletionLogprobsCountCharactersAcrossChunks) {
  OpenAiAnswer answer(Options(OpenAiApi::kCompletion, true), 2);
  const std::vector<GeneratedToken> tokens = Tokens();
  EXPECT_EQ(Parse(answer.Content(1, "é", {tokens[0], tokens[1]}))["choices"][0]["logprobs"]["text_offset"],
            Json({0, 0}));
  ExpectJson(Parse(answer.Content(1, "x", {tokens[2]}))["choices"][0]["logprobs"],
             R"({"tokens":["x"],"token_logprobs":[-2.0],"top_logprobs":[{}],"text_offset":[1]})");
}

TEST(OpenAiAnswerTest, AnEchoedPromptBeginsWithATokenWithoutLogprob) {
  OpenAiAnswer answer(Options(OpenAiApi::kCompletion, true), 1);
  const std::vector<GeneratedToken> tokens = {
      {.token = {0, "<s>", 0}, .top_logprobs = {}, .num_chars = 0, .has_logprob = false},
      {.token = {4, "x", -2.0f}, .top_logprobs = {{4, "x", -2.0f}}, .num_chars = 1},
      {.token = {5, "y", -1.0f}, .top_logprobs = {}, .num_chars = 1}};
  ExpectJson(Parse(answer.Content(0, "xy", tokens))["choices"][0]["logprobs"],
             R"({"tokens":["<s>","x","y"],"token_logprobs":[null,-2.0,-1.0],"top_logprobs":[null,{"x":-2.0},{}],
                 "text_offset":[0,0,1]})");
}

TEST(ErrorJsonTest, HasStableWordsAndTellsNothingInternal) {
  ExpectJson(
      ErrorJson(BadRequest("out_of_range", "top_p", "top_p is too large.")),
      R"({"error":{"message":"top_p is too large.","type":"invalid_request_error","param":"top_p","code":"out_of_range"}})");
  const Json internal = ErrorJson(absl::InternalError("/etc/secret at 0x1234"));
  EXPECT_EQ(internal["error"]["code"], "internal_error");
  EXPECT_EQ(internal["error"]["type"], "server_error");
  EXPECT_TRUE(internal["error"]["param"].is_null());
  EXPECT_EQ(internal.dump().find("secret"), std::string::npos);
}

std::string Header(const HttpResponse& response, absl::string_view name) {
  for (const auto& [key, value] : response.headers) {
    if (key == name) return value;
  }
  return "";
}

TEST(ErrorResponseTest, TellsClientsWhetherToTryAgain) {
  const struct {
    absl::Status error;
    int status;
    std::string retry_after, should_retry;
  } cases[] = {
      {BadRequest("x", "", ""), 400, "", ""},
      {ApiError(absl::StatusCode::kResourceExhausted, "x", "", ""), 429, "1", "true"},
      {WithRetryAfter(ApiError(absl::StatusCode::kUnavailable, "x", "", ""), absl::Milliseconds(2500)), 503, "3",
       "true"},
      {ApiError(absl::StatusCode::kUnimplemented, "x", "", ""), 501, "", "false"},
      {ApiError(absl::StatusCode::kAborted, "x", "", ""), 409, "", "false"},
      {WithHttpStatus(BadRequest("x", "", ""), 505), 505, "", "false"},
      {absl::InternalError("x"), 500, "", ""},
  };
  for (const auto& c : cases) {
    const HttpResponse response = ErrorResponse(c.error);
    EXPECT_EQ(response.status, c.status);
    EXPECT_EQ(Header(response, "retry-after"), c.retry_after) << c.status;
    EXPECT_EQ(Header(response, "x-should-retry"), c.should_retry) << c.status;
  }
}

}  // namespace
}  // namespace weft
