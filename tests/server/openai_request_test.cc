// Table J of bad JSON, and what good requests become.
#include "server/openai_request.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/api_error.h"

namespace weft {
namespace {

std::string Repeat(absl::string_view piece, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) absl::StrAppend(&out, piece);
  return out;
}

std::string Keys(int count) {
  std::string out;
  for (int i = 0; i < count; ++i) absl::StrAppend(&out, i == 0 ? "" : ",", "\"k", i, "\":0");
  return out;
}

absl::StatusOr<OpenAiRequest> ParseCompletion(absl::string_view body) {
  const absl::StatusOr<Json> json = ParseJsonObject(body);
  if (!json.ok()) return json.status();
  return ParseCompletionRequest(*json);
}

absl::StatusOr<OpenAiRequest> ParseChat(absl::string_view body) {
  const absl::StatusOr<Json> json = ParseJsonObject(body);
  if (!json.ok()) return json.status();
  return ParseChatRequest(*json);
}

// A chat body whose other fields are good.
absl::StatusOr<OpenAiRequest> ParseChatWith(absl::string_view fields) {
  return ParseChat(absl::StrCat(R"({"messages":[{"role":"user","content":"hi"}],)", fields, "}"));
}

struct BadCase {
  std::string body;
  std::string code;
  std::string param;
};

void ExpectError(const absl::StatusOr<OpenAiRequest>& result, const BadCase& bad) {
  const std::string shown = bad.body.substr(0, 120);
  ASSERT_FALSE(result.ok()) << shown;
  EXPECT_EQ(ErrorCode(result.status()), bad.code) << shown;
  EXPECT_EQ(ErrorParam(result.status()), bad.param) << shown;
  EXPECT_EQ(HttpStatus(result.status()), 400) << shown;
}

TEST(ParseJsonTest, RefusesWhatIsNotOneBoundedObject) {
  const std::vector<BadCase> cases = {
      {"", "invalid_json", ""},
      {"null", "expected_object", ""},
      {"[]", "expected_object", ""},
      {"\"x\"", "expected_object", ""},
      {R"({"prompt":"a")", "invalid_json", ""},
      {R"({"prompt":"a"} x)", "invalid_json", ""},
      {R"({"prompt":"a"}{})", "invalid_json", ""},
      {R"({"prompt":"a",})", "invalid_json", ""},
      {"{'prompt':1}", "invalid_json", ""},
      {"{\"prompt\":\"a\nb\"}", "invalid_json", ""},
      {Repeat("[", 100000), "json_too_deep", ""},
      {Repeat("{\"a\":", 100000), "json_too_deep", ""},
      {absl::StrCat("{\"a\":", Repeat("[", 64), Repeat("]", 64), "}"), "json_too_deep", ""},
      {absl::StrCat(R"({"tools":[{"function":{"parameters":)", Repeat("[", 3000)), "json_too_deep", ""},
      {R"({"model":"a","model":"a"})", "duplicate_key", "model"},
      {R"({"max_tokens":1,"max_t\u006fkens":2})", "duplicate_key", "max_tokens"},
      {R"({"a":{"b c":1,"b c":2}})", "duplicate_key", ""},
      {"{\"prompt\":\"\xFF\"}", "invalid_utf8", ""},
      {"{\"prompt\":\"\xC0\x80\"}", "invalid_utf8", ""},
      {"{\"prompt\":\"\xED\xA0\x80\"}", "invalid_utf8", ""},
      {"{\"prompt\":\"\xF4\x90\x80\x80\"}", "invalid_utf8", ""},
      {R"({"prompt":"\ud800"})", "invalid_utf8", ""},
      {R"({"prompt":"\udc00\ud800"})", "invalid_utf8", ""},
      {R"({"prompt":"\ud800x"})", "invalid_utf8", ""},
      {"\xEF\xBB\xBF{}", "invalid_json", ""},
      {std::string("\xFE\xFF\0{\0}", 6), "invalid_json", ""},
      {R"({"temperature":NaN})", "invalid_json", ""},
      {R"({"temperature":Infinity})", "invalid_json", ""},
      {R"({"temperature":1e999})", "out_of_range", ""},
      {R"({"n":01})", "invalid_json", ""},
      {R"({"n":0x1})", "invalid_json", ""},
      {absl::StrCat("{", Keys(4097), "}"), "too_many_items", ""},
      {absl::StrCat("{\"prompt\":[0", Repeat(",0", 1 << 20), "]}"), "too_many_items", ""},
  };
  for (const BadCase& bad : cases) ExpectError(ParseCompletion(bad.body), bad);
}

TEST(ParseJsonTest, TakesWhatIsJustWithinTheBounds) {
  EXPECT_TRUE(ParseJson(absl::StrCat("{\"a\":", Repeat("[", 63), Repeat("]", 63), "}")).ok());
  EXPECT_TRUE(ParseJson(absl::StrCat("{", Keys(4096), "}")).ok());
  const auto json = ParseJson("{\"a\":[1,-2,1.5,\"x\\u0000y\",\"\\ud83d\\ude00\",\"[{\\\"\",true,null],\"b\":{}}");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(DumpJson(*json), "{\"a\":[1,-2,1.5,\"x\\u0000y\",\"\xF0\x9F\x98\x80\",\"[{\\\"\",true,null],\"b\":{}}");
}

TEST(DumpJsonTest, ReplacesWhatIsNotUtf8) { EXPECT_EQ(DumpJson(Json("a\xFF\n\n")), "\"a\xEF\xBF\xBD\\n\\n\""); }

TEST(ParseCompletionRequestTest, RefusesBadPrompts) {
  const std::vector<BadCase> cases = {
      {"{}", "missing_field", "prompt"},
      {R"({"prompt":null})", "missing_field", "prompt"},
      {R"({"prompt":7})", "wrong_type", "prompt"},
      {R"({"prompt":{}})", "wrong_type", "prompt"},
      {R"({"prompt":[]})", "empty", "prompt"},
      {R"({"prompt":[-1]})", "invalid_token_id", "prompt"},
      {R"({"prompt":[2147483648]})", "invalid_token_id", "prompt"},
      {R"({"prompt":[18446744073709551615]})", "invalid_token_id", "prompt"},
      {R"({"prompt":[1,1.5]})", "invalid_token_id", "prompt"},
      {R"({"prompt":[1,"1"]})", "invalid_token_id", "prompt"},
      {R"({"prompt":[[1],[true]]})", "invalid_token_id", "prompt[1]"},
      {R"({"prompt":["a",[1]]})", "wrong_type", "prompt"},
      {absl::StrCat(R"({"prompt":["a")", Repeat(",\"a\"", 32), "]}"), "too_many_prompts", "prompt"},
      {R"({"prompt":"a","messages":[]})", "conflict", "messages"},
      {R"({"prompt":"a","suffix":"b"})", "unsupported_parameter", "suffix"},
      {R"({"prompt":"a","logprobs":true})", "wrong_type", "logprobs"},
  };
  for (const BadCase& bad : cases) ExpectError(ParseCompletion(bad.body), bad);
}

TEST(ParseChatRequestTest, RefusesBadFieldsAndNamesThem) {
  const std::vector<BadCase> cases = {
      {R"("model":5)", "wrong_type", "model"},
      {R"("max_tokens":1.5)", "wrong_type", "max_tokens"},
      {R"("max_tokens":10.0)", "wrong_type", "max_tokens"},
      {R"("max_tokens":"10")", "wrong_type", "max_tokens"},
      {R"("max_tokens":9223372036854775808)", "out_of_range", "max_tokens"},
      {R"("max_completion_tokens":99999999999999999999999)", "out_of_range", "max_completion_tokens"},
      {R"("temperature":"NaN")", "wrong_type", "temperature"},
      {R"("temperature":true)", "wrong_type", "temperature"},
      {R"("n":"1")", "wrong_type", "n"},
      {R"("n":2,"best_of":1)", "out_of_range", "best_of"},
      {R"("best_of":1000000000)", "out_of_range", "best_of"},
      {R"("logprobs":5)", "wrong_type", "logprobs"},
      {R"("logprobs":true,"top_logprobs":21)", "out_of_range", "top_logprobs"},
      {R"("top_logprobs":2)", "unsupported", "top_logprobs"},
      {R"("prompt_logprobs":-1)", "unsupported_parameter", "prompt_logprobs"},
      {R"("stop":7)", "wrong_type", "stop"},
      {R"("stop":["a",7])", "wrong_type", "stop"},
      {R"("stop":["a","b","c","d","e"])", "out_of_range", "stop"},
      {R"("stop_token_ids":[-1])", "invalid_token_id", "stop_token_ids"},
      {R"("logit_bias":{"x":1})", "invalid_token_id", "logit_bias"},
      {R"("logit_bias":{"-1":1})", "invalid_token_id", "logit_bias"},
      {R"("logit_bias":{"1":"1"})", "wrong_type", "logit_bias"},
      {R"("logit_bias":[1])", "wrong_type", "logit_bias"},
      {absl::StrCat("\"logit_bias\":{", Keys(301), "}"), "out_of_range", "logit_bias"},
      {R"("seed":1.5)", "wrong_type", "seed"},
      {R"("seed":9223372036854775808)", "out_of_range", "seed"},
      {R"("stream":"true")", "wrong_type", "stream"},
      {R"("stream_options":{"include_usage":true})", "conflict", "stream_options"},
      {R"("stream":true,"stream_options":{"include_usage":1})", "wrong_type", "stream_options.include_usage"},
      {R"("response_format":{"type":"json_object"})", "unsupported", "response_format.type"},
      {R"("response_format":"text")", "wrong_type", "response_format"},
      {R"("tools":{})", "wrong_type", "tools"},
      {R"("tools":[{"type":"function","function":{"name":"a b"}}])", "invalid_tool", "tools[0].function.name"},
      {R"("tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"f"}}])",
       "invalid_tool", "tools[1].function.name"},
      {R"("tools":[{"type":"web"}])", "invalid_tool", "tools[0].function"},
      {absl::StrCat("\"tools\":[0", Repeat(",0", 128), "]"), "invalid_tool", "tools"},
      {R"("tool_choice":"required")", "unsupported", "tool_choice"},
      {R"("tool_choice":{"type":"function","function":{"name":"f"}})", "unsupported", "tool_choice"},
      {R"("chat_template":"x")", "unsupported_parameter", "chat_template"},
      {R"("chat_template_kwargs":{"messages":[]})", "unsupported_parameter", "chat_template_kwargs"},
      {R"("chat_template_kwargs":{"tokenize":true})", "unsupported_parameter", "chat_template_kwargs"},
      {R"("chat_template_kwargs":{"enable_thinking":{}})", "unsupported_parameter", "chat_template_kwargs"},
      {R"("guided_json":{})", "unsupported_parameter", "guided_json"},
      {R"("lora_path":"x")", "unsupported_parameter", "lora_path"},
      {R"("use_beam_search":true)", "unsupported_parameter", "use_beam_search"},
      {absl::StrCat("\"user\":\"", Repeat("u", 513), "\""), "out_of_range", "user"},
      {R"("metadata":{"a":1})", "out_of_range", "metadata"},
      {R"("prompt":"x")", "conflict", "prompt"},
  };
  for (const BadCase& bad : cases) ExpectError(ParseChatWith(bad.body), bad);
}

TEST(ParseChatRequestTest, RefusesBadMessages) {
  const std::vector<BadCase> cases = {
      {"{}", "missing_field", "messages"},
      {R"({"messages":"hi"})", "wrong_type", "messages"},
      {R"({"messages":[]})", "empty", "messages"},
      {absl::StrCat(R"({"messages":[0)", Repeat(",0", 2048), "]}"), "too_many_items", "messages"},
      {R"({"messages":["hi"]})", "wrong_type", "messages[0]"},
      {R"({"messages":[{"role":"robot","content":"x"}]})", "unsupported_content", "messages[0].role"},
      {R"({"messages":[{"content":"x"}]})", "unsupported_content", "messages[0].role"},
      {R"({"messages":[{"role":"user"}]})", "unsupported_content", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"user","content":null}]})", "unsupported_content",
       "messages[1].content"},
      {R"({"messages":[{"role":"user","content":5}]})", "unsupported_content", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":{}}]})", "unsupported_content", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x"}}]}]})",
       "unsupported_content", "messages[0].content[0].type"},
      {R"({"messages":[{"role":"user","content":["x"]}]})", "unsupported_content", "messages[0].content[0]"},
      {R"({"messages":[{"role":"user","content":[{"type":"text","text":3}]}]})", "wrong_type",
       "messages[0].content[0].text"},
      {R"({"messages":[{"role":"assistant","tool_calls":[{}]}]})", "wrong_type", "messages[0].tool_calls[0]"},
  };
  for (const BadCase& bad : cases) ExpectError(ParseChat(bad.body), bad);
}

TEST(ParseChatRequestTest, ReadsEveryField) {
  const auto request = ParseChatWith(
      R"("model":"m","n":2,"max_tokens":5,"max_completion_tokens":7,"min_tokens":1,"stop":["a","b"],"stop_token_ids":[3],
         "include_stop_str_in_output":true,"ignore_eos":true,"skip_special_tokens":false,"temperature":0,"top_p":0.5,
         "min_p":0.1,"top_k":4,"repetition_penalty":1.0,"presence_penalty":-1,"frequency_penalty":2,
         "logit_bias":{"5":-100,"6":1.5},"seed":-9223372036854775808,"logprobs":true,"top_logprobs":3,"stream":true,
         "stream_options":{"include_usage":true},"tool_choice":"auto","response_format":{"type":"text"},"user":"u",
         "metadata":{"a":"b"},"a_field_of_tomorrow":{"x":[1]},"best_of":null)");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
  ASSERT_EQ(request->prompts.size(), 1u);
  const GenerateRequest& got = request->prompts[0];
  EXPECT_EQ(got.model, "m");
  EXPECT_EQ(got.n, 2);
  EXPECT_EQ(got.max_tokens, 7);
  EXPECT_EQ(got.min_tokens, 1);
  EXPECT_EQ(got.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(got.stop_token_ids, std::vector<int32_t>{3});
  EXPECT_TRUE(got.include_stop_str_in_output);
  EXPECT_TRUE(got.ignore_eos);
  EXPECT_FALSE(got.skip_special_tokens);
  EXPECT_EQ(got.temperature, 0.0);
  EXPECT_EQ(got.top_p, 0.5);
  EXPECT_EQ(got.min_p, 0.1);
  EXPECT_EQ(got.top_k, 4);
  EXPECT_EQ(got.repetition_penalty, 1.0);
  EXPECT_EQ(got.presence_penalty, -1.0);
  EXPECT_EQ(got.frequency_penalty, 2.0);
  EXPECT_EQ(got.logit_bias, (std::vector<std::pair<int64_t, double>>{{5, -100.0}, {6, 1.5}}));
  EXPECT_EQ(got.seed, std::numeric_limits<int64_t>::min());
  EXPECT_EQ(got.num_logprobs, 3);
}

TEST(ParseChatRequestTest, ShapesMessagesForTemplates) {
  const auto request = ParseChat(
      R"({"messages":[{"role":"developer","content":"d"},
          {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"secret":1},
          {"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
          {"role":"tool","tool_call_id":"1","content":"2"}],
          "tools":[{"type":"function","function":{"name":"f","parameters":{}}}],
          "chat_template_kwargs":{"enable_thinking":false}})");
  ASSERT_TRUE(request.ok()) << request.status();
  const Json expected = *ParseJson(
      R"({"enable_thinking":false,"messages":[{"role":"system","content":"d"},{"role":"user","content":"a\nb"},
          {"role":"assistant","content":null,
           "tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":{"x":1}}}]},
          {"role":"tool","content":"2","tool_call_id":"1"}],
          "tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"add_generation_prompt":true})");
  EXPECT_EQ(DumpJson(std::get<ChatPrompt>(request->prompts[0].prompt).inputs), DumpJson(expected));
}

TEST(ParseChatRequestTest, HidesToolsThatMustNotBeCalled) {
  const auto request = ParseChatWith(R"("tool_choice":"none","tools":[{"type":"function","function":{"name":"f"}}])");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_FALSE(std::get<ChatPrompt>(request->prompts[0].prompt).inputs.contains("tools"));
}

TEST(ParseCompletionRequestTest, ReadsEveryKindOfPrompt) {
  const auto text = ParseCompletion(R"({"prompt":"a\u0000b","echo":true,"add_special_tokens":false})");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(std::get<std::string>(text->prompts[0].prompt), std::string("a\0b", 3));
  EXPECT_TRUE(text->prompts[0].echo);
  EXPECT_FALSE(text->prompts[0].add_special_tokens);
  EXPECT_FALSE(text->prompts[0].num_logprobs.has_value());

  const auto texts = ParseCompletion(R"({"prompt":["a","b"],"logprobs":0,"seed":4})");
  ASSERT_TRUE(texts.ok()) << texts.status();
  ASSERT_EQ(texts->prompts.size(), 2u);
  EXPECT_EQ(std::get<std::string>(texts->prompts[1].prompt), "b");
  EXPECT_EQ(texts->prompts[1].seed, 4);
  EXPECT_EQ(texts->prompts[1].num_logprobs, 0);

  const auto ids = ParseCompletion(R"({"prompt":[1,2147483647]})");
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(std::get<std::vector<int32_t>>(ids->prompts[0].prompt), (std::vector<int32_t>{1, 2147483647}));

  const auto batches = ParseCompletion(R"({"prompt":[[1],[2,3]]})");
  ASSERT_TRUE(batches.ok()) << batches.status();
  ASSERT_EQ(batches->prompts.size(), 2u);
  EXPECT_EQ(std::get<std::vector<int32_t>>(batches->prompts[1].prompt), (std::vector<int32_t>{2, 3}));
}

TEST(ParseTokenizeRequestTest, NeedsOneOfPromptAndMessages) {
  EXPECT_EQ(ErrorCode(ParseTokenizeRequest(*ParseJson("{}")).status()), "missing_field");
  EXPECT_EQ(ErrorCode(ParseTokenizeRequest(*ParseJson(R"({"prompt":"a","messages":[]})")).status()), "conflict");
  EXPECT_TRUE(ParseTokenizeRequest(*ParseJson(R"({"prompt":"a"})")).ok());
  EXPECT_EQ(ErrorCode(ParseDetokenizeRequest(*ParseJson(R"({"tokens":[-1]})")).status()), "invalid_token_id");
  EXPECT_EQ(ErrorCode(ParseDetokenizeRequest(*ParseJson("{}")).status()), "missing_field");
}

TEST(ParseRequestTest, APriorityIsAWordOrANumberAsVllmHasIt) {
  const struct {
    std::string field;
    std::optional<Priority> priority;
  } cases[] = {{R"("priority":"high")", Priority::kHigh}, {R"("priority":"normal")", Priority::kNormal},
               {R"("priority":"low")", Priority::kLow},   {R"("priority":-1)", Priority::kHigh},
               {R"("priority":0)", Priority::kNormal},    {R"("priority":1)", Priority::kLow},
               {R"("priority":null)", std::nullopt},      {R"("n":1)", std::nullopt}};
  for (const auto& c : cases) {
    const absl::StatusOr<OpenAiRequest> chat = ParseChatWith(c.field);
    ASSERT_TRUE(chat.ok()) << c.field << chat.status();
    EXPECT_EQ(chat->prompts[0].priority, c.priority) << c.field;
    const auto completion = ParseCompletion(absl::StrCat(R"({"prompt":"a",)", c.field, "}"));
    EXPECT_EQ(completion->prompts[0].priority, c.priority) << c.field;
  }
  for (const absl::string_view bad : {"2", "-2", "9223372036854775808", "1e999", "\"High\"", "\"\"", "\"urgent\""}) {
    const absl::Status status = ParseChatWith(absl::StrCat("\"priority\":", bad)).status();
    EXPECT_EQ(ErrorCode(status), "out_of_range") << bad;
    EXPECT_EQ(ErrorParam(status), bad == "1e999" ? "" : "priority") << bad;
  }
  for (const absl::string_view bad : {"0.0", "true", "[0]", "{}"}) {
    ExpectError(ParseChatWith(absl::StrCat("\"priority\":", bad)), {std::string(bad), "wrong_type", "priority"});
  }
}

}  // namespace
}  // namespace weft
