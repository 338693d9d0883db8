#include "server/generation_service.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/api_error.h"
#include "server/limits.h"
#include "tests/server/fake_serving.h"

namespace weft {
namespace {

GenerateRequest PromptOf(std::vector<int32_t> ids, int64_t max_tokens) {
  GenerateRequest request;
  request.tenant = "default";
  request.prompt = std::move(ids);
  request.max_tokens = max_tokens;
  request.seed = 7;
  return request;
}

ChatPrompt Chat(const std::string& content) {
  return {{{"messages", {{{"role", "user"}, {"content", content}}}}, {"add_generation_prompt", true}}};
}

// What a request gave in all.
struct Generated : Collected {
  std::string prompt_text;
  Usage usage;
};

// Generates to the end. A refusal throws, which fails the test.
Generated GenerateAll(FakeServing& serving, const GenerateRequest& request) {
  WakeCounter wakes;
  const std::unique_ptr<Generation> generation = serving.service->Generate(request, wakes.Wake()).value();
  Collected all = Collect(*generation, wakes, static_cast<size_t>(request.n));
  return {std::move(all), generation->prompt_text(), generation->usage()};
}

TEST(GenerationServiceTest, GivesWhatTheEngineDraws) {
  FakeServing serving;
  WakeCounter wakes;
  auto generation = serving.service->Generate(PromptOf({1, 2, 3}, 20), wakes.Wake());
  ASSERT_TRUE(generation.ok()) << generation.status();
  const Collected all = Collect(**generation, wakes);
  EXPECT_EQ(all.texts[0], serving.ExpectedText({1, 2, 3}, 7, 20));
  EXPECT_EQ(all.finishes[0].kind, StopKind::kLength);
  EXPECT_EQ((*generation)->usage().prompt_tokens, 3);
  EXPECT_EQ((*generation)->usage().completion_tokens, 20);
  EXPECT_TRUE((*generation)->Take().empty());
  EXPECT_EQ(serving.service->num_active(), 0);
  EXPECT_EQ(MetricValue(serving.metrics, "weft_prompt_tokens_total"), 3);
  EXPECT_EQ(MetricValue(serving.metrics, "weft_generation_tokens_total"), 20);
}

TEST(GenerationServiceTest, ChoicesShareASeedAndDiffer) {
  FakeServing serving;
  GenerateRequest request = PromptOf({1, 2, 3}, 8);
  request.n = 3;
  const Generated all = GenerateAll(serving, request);
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(all.texts[i], serving.ExpectedText({1, 2, 3}, 7, 8, i));
  EXPECT_EQ(all.usage.prompt_tokens, 3);
  EXPECT_EQ(all.usage.completion_tokens, 24);
}

TEST(GenerationServiceTest, RequestsWithoutSeedDiffer) {
  FakeServing serving;
  std::vector<std::string> texts;
  for (int i = 0; i < 2; ++i) {
    GenerateRequest request = PromptOf({1}, 16);
    request.seed.reset();
    texts.push_back(GenerateAll(serving, request).texts[0]);
  }
  EXPECT_NE(texts[0], texts[1]);
}

TEST(GenerationServiceTest, TextAndChatBecomeTheirTokens) {
  FakeServing serving;
  WakeCounter wakes;
  GenerateRequest text = PromptOf({}, 1);
  text.prompt = std::string("the weft <|eot_id|>");
  auto completion = serving.service->Generate(text, wakes.Wake());
  ASSERT_TRUE(completion.ok());
  EXPECT_EQ((*completion)->prompt_ids(), *serving.service->Tokenize(std::string("the weft <|eot_id|>"), true));

  GenerateRequest chat = PromptOf({}, 1);
  chat.prompt = Chat("<|eot_id|>");
  auto answer = serving.service->Generate(chat, wakes.Wake());
  ASSERT_TRUE(answer.ok());
  int num_eot = 0;
  for (const int32_t id : (*answer)->prompt_ids()) num_eot += id == 904 ? 1 : 0;
  EXPECT_EQ(num_eot, 1) << "the template's, not the user's";
}

TEST(GenerationServiceTest, EchoComesFirstInEachChoice) {
  FakeServing serving;
  GenerateRequest request = PromptOf({}, 4);
  request.prompt = std::string("the weft");
  request.n = 2;
  request.echo = true;
  const Generated all = GenerateAll(serving, request);
  EXPECT_EQ(all.prompt_text, "the weft");
  for (const std::string& text : all.texts) EXPECT_EQ(text.rfind("the weft", 0), 0u);
}

TEST(GenerationServiceTest, EchoWithLogprobsScoresThePrompt) {
  FakeServing serving;
  const std::vector<int32_t> prompt = serving.tokenizer->AddSpecial(serving.tokenizer->Encode("Hello there"));
  for (const bool ids : {false, true}) {
    GenerateRequest request = PromptOf(prompt, 3);
    if (!ids) request.prompt = "Hello there";
    request.skip_special_tokens = !ids;
    request.ignore_eos = true;
    request.echo = true;
    request.num_logprobs = 0;
    const Generated all = GenerateAll(serving, request);
    const std::vector<GeneratedToken>& tokens = all.logprobs[0];
    ASSERT_EQ(tokens.size(), prompt.size() + 3);
    for (size_t i = 0; i < prompt.size(); ++i) {
      EXPECT_EQ(tokens[i].token.id, prompt[i]);
      EXPECT_EQ(tokens[i].has_logprob, i > 0);
      EXPECT_EQ(tokens[i].token.logprob, -static_cast<float>(i));  // the fake engine's score is the position
    }
    EXPECT_EQ(tokens[0].num_chars, ids ? 17 : 0) << "<|begin_of_text|> is spelled out only where it is shown";
    int64_t num_chars = 0;
    for (size_t i = 1; i < prompt.size(); ++i) num_chars += tokens[i].num_chars;
    EXPECT_EQ(num_chars, 11);
  }
}

TEST(GenerationServiceTest, AnEchoComesThoughNothingIsDrawn) {
  const std::vector<int32_t> drawn = FakeEngine::ExpectedTokens({1, 2, 3}, {.seed = 7}, FakeServing::kVocabSize, 1);
  FakeServing serving;
  GenerateRequest request = PromptOf({1, 2, 3}, 9);
  request.stop_token_ids = drawn;
  request.echo = true;
  request.num_logprobs = 0;
  const Generated all = GenerateAll(serving, request);
  EXPECT_EQ(all.texts[0], all.prompt_text);
  EXPECT_EQ(all.logprobs[0].size(), 3u);
  EXPECT_EQ(all.finishes[0].kind, StopKind::kStop);
}

TEST(GenerationServiceTest, BoundsWhatAnEchoMayHold) {
  FakeServing serving({.max_model_len = 1000});
  GenerateRequest request = PromptOf({1, 2, 3}, 1);
  request.echo = true;
  request.num_logprobs = 0;
  request.n = 2;
  EXPECT_EQ(ErrorCode(serving.service->Generate(request, [] {}).status()), "unsupported_combination");
  EXPECT_TRUE(CheckScores(kMaxScores).ok());
  EXPECT_EQ(ErrorCode(CheckScores(kMaxScores + 1)), "out_of_range");
}

TEST(GenerationServiceTest, PrefixesAreSharedWithinATenantAndASalt) {
  FakeServing serving;
  const auto cached = [&serving](const std::string& tenant, const std::string& salt) {
    GenerateRequest request = PromptOf(std::vector<int32_t>(40, 5), 1);
    request.tenant = tenant;
    request.cache_salt = salt;
    return GenerateAll(serving, request).usage.cached_tokens;
  };
  EXPECT_EQ(cached("a", ""), 0);
  EXPECT_EQ(cached("a", ""), 32);
  EXPECT_EQ(cached("b", ""), 0);
  EXPECT_EQ(cached("a", "salt"), 0);
  EXPECT_EQ(cached("a", "salt"), 32);
}

TEST(GenerationServiceTest, WithoutAPrefixCacheTheChoicesOfOneRequestStillShareItsPrompt) {
  FakeServing serving({.start_replica = false, .prefix_cache = PrefixCache::kOff});
  GenerateRequest request = PromptOf(std::vector<int32_t>(40, 5), 1);
  const auto computed = [&] {
    const auto generation = serving.service->Generate(request, [] {});
    EXPECT_TRUE(generation.ok()) << generation.status();
    for (int turn = 0; turn < 20; ++turn) serving.Turn();
    return MetricValue(serving.metrics, "weft_computed_tokens_total");
  };
  EXPECT_EQ(computed(), 40);
  EXPECT_EQ(computed(), 80) << "nothing is shared between requests";
  request.n = 3;
  EXPECT_EQ(computed(), 80 + 40 + 8 + 8);
}

TEST(GenerationServiceTest, ALongEchoComesInParts) {
  FakeServing serving({.max_model_len = 1000});
  GenerateRequest request = PromptOf(std::vector<int32_t>(600, 5), 1);
  request.echo = true;
  request.num_logprobs = 2;
  WakeCounter wakes;
  auto generation = serving.service->Generate(request, wakes.Wake());
  ASSERT_TRUE(generation.ok()) << generation.status();
  EXPECT_EQ((*generation)->num_scores(), 1800);
  size_t num_tokens = 0;
  while (!(*generation)->done() && wakes.Await()) {
    for (const Delta& delta : (*generation)->Take()) {
      EXPECT_LE(delta.logprobs.size(), 256u);
      num_tokens += delta.logprobs.size();
    }
  }
  EXPECT_EQ(num_tokens, 601u);
}

TEST(GenerationServiceTest, AFailureIsNotHiddenBehindAnEcho) {
  FakeServing serving({.start_replica = false});
  for (const bool logprobs : {false, true}) {
    GenerateRequest request = PromptOf({1, 2, 3}, 4);
    request.echo = true;
    if (logprobs) request.num_logprobs = 1;
    WakeCounter wakes;
    auto generation = serving.service->Generate(request, wakes.Wake());
    ASSERT_TRUE(generation.ok()) << generation.status();
    serving.service->CancelAll();
    const std::vector<Delta> deltas = (*generation)->Take();
    ASSERT_EQ(deltas.size(), 1u);
    EXPECT_EQ(deltas[0].text, "");
    EXPECT_EQ(FinishError(*deltas[0].finish).code(), absl::StatusCode::kUnavailable);
  }
}

TEST(GenerationServiceTest, StopStringEndsTheSequenceEarly) {
  FakeServing serving;
  const std::string whole = serving.ExpectedText({5}, 7, 200);
  GenerateRequest request = PromptOf({5}, 200);
  request.stop = {whole.substr(20, 6)};
  const Generated all = GenerateAll(serving, request);
  EXPECT_EQ(all.texts[0], whole.substr(0, whole.find(request.stop[0])));
  EXPECT_EQ(all.finishes[0].kind, StopKind::kStop);
  EXPECT_LT(all.usage.completion_tokens, 200);
}

TEST(GenerationServiceTest, StopTokensEndUnlessIgnored) {
  const std::vector<int32_t> drawn = FakeEngine::ExpectedTokens({5}, {.seed = 7}, FakeServing::kVocabSize, 30);
  FakeServing serving({.eos_token_ids = {drawn[10]}});
  struct Case {
    bool ignore_eos;
    int64_t min_tokens;
    std::vector<int32_t> own;
    int64_t num_tokens;
  };
  for (const Case& c : {Case{false, 0, {}, 11}, Case{true, 0, {}, 30}, Case{true, 0, {drawn[4]}, 5}}) {
    GenerateRequest request = PromptOf({5}, 30);
    request.ignore_eos = c.ignore_eos;
    request.stop_token_ids = c.own;
    EXPECT_EQ(GenerateAll(serving, request).usage.completion_tokens, c.num_tokens);
  }
}

TEST(GenerationServiceTest, DestructionFreesSlotsAndQueue) {
  FakeServing serving;
  WakeCounter wakes;
  std::vector<std::unique_ptr<Generation>> generations;
  for (int i = 0; i < 12; ++i) {  // more than there are slots, so some wait in the queue
    generations.push_back(*serving.service->Generate(PromptOf({i}, 200), wakes.Wake()));
  }
  EXPECT_EQ(serving.service->num_active(), 12);
  generations.clear();
  EXPECT_TRUE(serving.service->WaitUntilIdle(absl::Seconds(10)));
  // The replica hears of it with its next step; a new request can have everything.
  auto generation = serving.service->Generate(PromptOf({1}, 100), wakes.Wake());
  Collect(**generation, wakes);
  EXPECT_EQ(serving.queue.size(), 0);
}

TEST(GenerationServiceTest, RefusesWhatCanNotBeServed) {
  struct Case {
    const char* code;
    const char* param;
    absl::StatusCode status;
    std::function<void(GenerateRequest&)> set;
  };
  const auto kBad = absl::StatusCode::kInvalidArgument;
  const std::vector<Case> cases = {
      {"model_not_found", "model", absl::StatusCode::kNotFound, [](auto& r) { r.model = "../../x"; }},
      {"out_of_range", "temperature", kBad, [](auto& r) { r.temperature = -1; }},
      {"invalid_token_id", "prompt", kBad, [](auto& r) { r.prompt = std::vector<int32_t>{-1}; }},
      {"invalid_token_id", "prompt", kBad, [](auto& r) { r.prompt = std::vector<int32_t>{FakeServing::kVocabSize}; }},
      {"invalid_token_id", "stop_token_ids", kBad, [](auto& r) { r.stop_token_ids = {-5}; }},
      {"invalid_token_id", "logit_bias", kBad,
       [](auto& r) {
         r.logit_bias = {{int64_t{1} << 40, 1}};
       }},
      {"empty", "prompt", kBad, [](auto& r) { r.prompt = std::vector<int32_t>{}; }},
      {"context_length_exceeded", "prompt", kBad, [](auto& r) { r.prompt = std::vector<int32_t>(256); }},
      {"context_length_exceeded", "prompt", kBad, [](auto& r) { r.prompt = std::string(1 << 20, 'x'); }},
      {"context_length_exceeded", "messages", kBad, [](auto& r) { r.prompt = Chat(std::string(4000, 'x')); }},
      {"context_length_exceeded", "max_tokens", kBad, [](auto& r) { r.max_tokens = 254; }},
      {"template_rejected", "messages", kBad, [](auto& r) { r.prompt = Chat("forbidden"); }},
  };
  FakeServing serving;
  for (const Case& c : cases) {
    WakeCounter wakes;
    GenerateRequest request = PromptOf({1, 2, 3}, 4);
    c.set(request);
    const absl::Status status = serving.service->Generate(request, wakes.Wake()).status();
    EXPECT_EQ(ErrorCode(status), c.code);
    EXPECT_EQ(ErrorParam(status), c.param) << c.code;
    EXPECT_EQ(status.code(), c.status) << c.code;
    EXPECT_EQ(serving.service->num_active(), 0);
  }
}

TEST(GenerationServiceTest, MaxTokensIsWhatThePromptLeaves) {
  FakeServingOptions options;
  options.max_model_len = 40;
  FakeServing serving(options);
  options.defaults.max_new_tokens = 6;
  FakeServing modest(options);
  for (auto& [server, expected] : {std::pair(&serving, 37), std::pair(&modest, 6)}) {
    GenerateRequest request = PromptOf({1, 2, 3}, 1);
    request.max_tokens.reset();
    EXPECT_EQ(GenerateAll(*server, request).usage.completion_tokens, expected);
  }
}

TEST(GenerationServiceTest, AFullQueueRefusesAllChoicesOrNone) {
  FakeServing serving({.max_queued_requests = 4, .start_replica = false});
  WakeCounter wakes;
  GenerateRequest three = PromptOf({1}, 4);
  three.n = 3;
  auto first = serving.service->Generate(three, wakes.Wake());
  ASSERT_TRUE(first.ok());
  const absl::Status full = serving.service->Generate(three, wakes.Wake()).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorCode(full), "server_overloaded");
  EXPECT_TRUE(RetryAfter(full).has_value());
  EXPECT_EQ(serving.queue.size(), 3);
  auto second = serving.service->Generate(PromptOf({1}, 4), wakes.Wake());
  EXPECT_TRUE(second.ok());
  first->reset();
  EXPECT_EQ(serving.queue.size(), 1) << "what waits is taken out with its reader";
}

TEST(GenerationServiceTest, DrainingRefusesNewWorkAndFinishesOld) {
  FakeServing serving;
  WakeCounter wakes;
  auto generation = serving.service->Generate(PromptOf({1}, 50), wakes.Wake());
  serving.service->StopAccepting();
  const absl::Status refused = serving.service->Generate(PromptOf({1}, 1), wakes.Wake()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorCode(refused), "draining");
  EXPECT_TRUE(RetryAfter(refused).has_value());
  EXPECT_EQ(Collect(**generation, wakes).finishes[0].kind, StopKind::kLength);
  EXPECT_TRUE(serving.service->WaitUntilIdle(absl::ZeroDuration()));
}

TEST(GenerationServiceTest, CancelAllEndsEverythingInAnError) {
  FakeServing serving({.start_replica = false});
  WakeCounter wakes;
  auto generation = serving.service->Generate(PromptOf({1}, 50), wakes.Wake());
  EXPECT_FALSE(serving.service->WaitUntilIdle(absl::ZeroDuration()));
  serving.service->CancelAll();
  const Collected all = Collect(**generation, wakes);
  EXPECT_EQ(all.finishes[0].kind, StopKind::kError);
  EXPECT_EQ(ErrorCode(all.finishes[0].status), "shutting_down");
  EXPECT_EQ(serving.queue.size(), 0);
}

TEST(GenerationServiceTest, ARequestGoesOnWhereAReplicaDied) {
  FakeServing serving({.start_replica = false, .num_replicas = 2, .steps_to_live = {9}});
  WakeCounter wakes;
  auto generation = serving.service->Generate(PromptOf({1, 2, 3}, 40), wakes.Wake());
  ASSERT_TRUE(generation.ok()) << generation.status();
  serving.replicas[0]->Start();
  serving.replicas[0]->Join();
  EXPECT_FALSE(serving.replicas[0]->status().ok());
  EXPECT_EQ(MetricValue(serving.metrics, R"(weft_replica_up{replica="0"})"), 0);
  EXPECT_EQ(MetricValue(serving.metrics, R"(weft_replica_up{replica="1"})"), 1);
  serving.replicas[1]->Start();
  const Collected all = Collect(**generation, wakes);
  EXPECT_EQ(all.texts[0], serving.ExpectedText({1, 2, 3}, 7, 40));
  EXPECT_EQ(all.finishes[0].kind, StopKind::kLength);
}

TEST(GenerationServiceTest, ADeadlineEndsARequestInTheQueue) {
  FakeServing serving({.start_replica = false});
  WakeCounter wakes;
  GenerateRequest request = PromptOf({1}, 5);
  request.deadline = absl::Now() - absl::Seconds(1);
  EXPECT_EQ(ErrorCode(serving.service->Generate(request, wakes.Wake()).status()), "timeout");
  request.deadline = absl::Now() + absl::Milliseconds(20);
  auto generation = serving.service->Generate(request, wakes.Wake());
  ASSERT_TRUE(generation.ok()) << generation.status();
  absl::SleepFor(request.deadline - absl::Now());
  serving.replicas[0]->Start();
  const Collected all = Collect(**generation, wakes);
  EXPECT_EQ(all.finishes[0].status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ErrorCode(all.finishes[0].status), "timeout");
}

TEST(GenerationServiceTest, HoldsPlacesForThoseWhoWaitToBeParsed) {
  FakeServing serving({.max_queued_requests = 1, .start_replica = false});
  {
    const absl::StatusOr<QueuePlaces> place = serving.service->HoldPlace("a");
    EXPECT_TRUE(place.ok()) << place.status();
    EXPECT_EQ(ErrorCode(serving.service->HoldPlace("b").status()), "server_overloaded");
  }
  auto generation = serving.service->Generate(PromptOf({1}, 5), [] {});
  ASSERT_TRUE(generation.ok()) << generation.status();
  EXPECT_EQ(ErrorCode(serving.service->HoldPlace("a").status()), "server_overloaded");
  serving.service->StopAccepting();
  EXPECT_EQ(ErrorCode(serving.service->HoldPlace("a").status()), "draining");
}

TEST(GenerationServiceTest, TheLastReplicasDeathIsAnError) {
  FakeServing serving({.start_replica = false, .steps_to_live = {0}});
  WakeCounter wakes;
  auto generation = serving.service->Generate(PromptOf({1}, 5), wakes.Wake());
  serving.replicas[0]->Start();
  serving.replicas[0]->Join();
  serving.queue.Fail(absl::InternalError("the device at /dev/x is gone"));
  const Collected all = Collect(**generation, wakes);
  EXPECT_EQ(all.finishes[0].kind, StopKind::kError);
  EXPECT_EQ(ErrorCode(all.finishes[0].status), "internal_error");
  EXPECT_EQ(ErrorCode(serving.service->Generate(PromptOf({1}, 5), wakes.Wake()).status()), "draining");
}

TEST(GenerationServiceTest, ARequestThatKillsReplicasIsGivenUp) {
  FakeServing serving({.start_replica = false, .num_replicas = 3, .steps_to_live = {2, 0}});
  WakeCounter wakes;
  auto generation = serving.service->Generate(PromptOf({1, 2, 3}, 40), wakes.Wake());
  for (const size_t id : {0, 1}) {
    serving.replicas[id]->Start();
    serving.replicas[id]->Join();
  }
  serving.replicas[2]->Start();
  const Collected all = Collect(**generation, wakes);
  EXPECT_EQ(all.finishes[0].kind, StopKind::kError);
  EXPECT_EQ(ErrorCode(all.finishes[0].status), "request_caused_failure");
  EXPECT_EQ(HttpStatus(all.finishes[0].status), 500);
  EXPECT_EQ(GenerateAll(serving, PromptOf({4}, 5)).finishes[0].kind, StopKind::kLength) << "the last replica lives";
}

TEST(GenerationServiceTest, DetokenizeIsTheInverseOfTokenize) {
  FakeServing serving;
  const std::vector<int32_t> ids = *serving.service->Tokenize(std::string("na\xC3\xAFve weft"), false);
  EXPECT_EQ(*serving.service->Detokenize(ids), "na\xC3\xAFve weft");
  EXPECT_EQ(ErrorCode(serving.service->Detokenize({FakeServing::kVocabSize}).status()), "invalid_token_id");
}

TEST(GenerationServiceTest, ServesItsNames) {
  FakeServing serving;
  for (const char* name : {"", "fake", "alias"}) EXPECT_TRUE(serving.service->ServesModel(name)) << name;
  EXPECT_FALSE(serving.service->ServesModel("other"));
}

}  // namespace
}  // namespace weft
