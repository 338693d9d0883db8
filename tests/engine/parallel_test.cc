// A model spread over ranks computes what it computes on one: tokens are equal, greedy and drawn, under arrivals, cuts
// and preemption; logits of pipeline stages by the bit, of tensor ranks but for the order of sums.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/parallel_plan.h"
#include "tests/engine/open_engine.h"
#include "tests/engine/temp_model.h"
#include "tests/fakes/hand_driven_replica.h"

namespace weft {
namespace {

constexpr int kNumRequests = 12;
constexpr int kMaxModelLen = 120;

struct Output {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
};

// Prompts of different lengths; greedy and drawn, with every cut, penalty and bias.
std::unique_ptr<Request> MakeRequest(int i) {
  auto request = std::make_unique<Request>();
  request->tenant = "nobody";
  for (int t = 0; t < 3 + 6 * i; ++t) request->prompt.push_back((i * 7919 + t * 104729 + 11) % 200);
  SamplingParams& sampling = request->sampling;
  sampling.temperature = i % 3 == 0 ? 0.0f : 0.9f;
  sampling.top_k = i % 4 == 1 ? 20 : 0;
  sampling.top_p = i % 4 == 2 ? 0.8f : 1.0f;
  sampling.min_p = i % 4 == 3 ? 0.05f : 0.0f;
  sampling.repetition_penalty = i % 5 == 1 ? 1.2f : 1.0f;
  sampling.frequency_penalty = i % 5 == 2 ? 0.3f : 0.0f;
  if (i % 5 == 3) sampling.logit_bias = {{3, 2.0f}, {199, 1.5f}, {77, -INFINITY}};
  sampling.seed = static_cast<uint64_t>(i);
  sampling.num_logprobs = i % 3;
  sampling.score_prompt = i % 6 == 5;
  request->stop.max_tokens = 30;
  return request;
}

struct Case {
  std::string model;
  ParallelSizes sizes;
  int max_num_batched_tokens = 64;
  int num_sequences_of_cache = 16;  // of kMaxModelLen tokens each
  DType weights = DType::kF32;
};

std::string NameOf(const Case& c) {
  std::string name = c.model + "_tp" + std::to_string(c.sizes.tensor) + "_pp" + std::to_string(c.sizes.pipeline);
  if (c.sizes.expert > 1) name += "_ep" + std::to_string(c.sizes.expert);
  if (!c.sizes.layers.empty()) name += "_uneven";
  return name + (c.num_sequences_of_cache < 4 ? "_few_blocks" : "") + (c.max_num_batched_tokens < 20 ? "_chunks" : "") +
         (c.weights == DType::kI8 ? "_int8" : "");
}
void PrintTo(const Case& c, std::ostream* out) { *out << NameOf(c); }

std::vector<Output> RunAll(const Case& c) {
  const std::string dir = FixtureModel(c.model);
  const ModelConfig config = *LoadModelConfig(dir);
  EngineSetup options{.model_dir = dir,
                      .weights = {.dtype = c.weights},
                      .device = {.num_threads = 2},
                      .parallel = c.sizes,
                      .max_model_len = kMaxModelLen,
                      .max_num_seqs = 8,
                      .max_num_batched_tokens = c.max_num_batched_tokens};
  options.kv_cache_bytes = *KvCacheBytes(config, options, c.num_sequences_of_cache * kMaxModelLen);
  auto engine = OpenOneEngine(config, options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  HandDrivenReplica replica(*std::move(engine));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < kNumRequests; ++i) {
    sinks.push_back(replica.Push(MakeRequest(i)));
    for (int step = 0; step < i % 3; ++step) replica.Step();
  }
  replica.RunUntilIdle();
  EXPECT_EQ(replica.stats().num_free_blocks, replica.stats().num_blocks);
  std::vector<Output> outputs;
  for (const auto& sink : sinks) outputs.push_back({sink->tokens, sink->logprobs});
  return outputs;
}

class ParallelTest : public testing::TestWithParam<Case> {};

TEST_P(ParallelTest, OutputsAreThoseOfOneRank) {
  Case whole = GetParam();
  whole.sizes = {};
  const std::vector<Output> expected = RunAll(whole), actual = RunAll(GetParam());
  // Stages change no bit.
  const double tolerance = GetParam().sizes.tensor == 1 ? 0 : 2e-4;
  for (size_t i = 0; i < kNumRequests; ++i) {
    EXPECT_EQ(actual[i].tokens, expected[i].tokens) << "request " << i;
    ASSERT_EQ(actual[i].logprobs.size(), expected[i].logprobs.size()) << "request " << i;
    for (size_t t = 0; t < actual[i].logprobs.size(); ++t) {
      EXPECT_NEAR(actual[i].logprobs[t], expected[i].logprobs[t], tolerance) << "request " << i << " token " << t;
    }
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const char* const model : {"llama2", "llama_bias", "qwen2"}) {
    cases.push_back({model, {.tensor = 2}});
    cases.push_back({model, {.pipeline = 2}});
    cases.push_back({model, {.tensor = 2, .pipeline = 2}});
  }
  for (const char* const model : {"llama3", "mistral", "qwen2_window"}) {
    cases.push_back({model, {.tensor = 4}});
    cases.push_back({model, {.pipeline = 3}});
    cases.push_back({model, {.tensor = 2, .pipeline = 2, .layers = {1, 2}}});
  }
  cases.push_back({"qwen3", {.tensor = 2, .pipeline = 2}});
  cases.push_back({"qwen3", {.tensor = 3}});  // 6 heads, 2 of them key-value heads: ranks keep copies
  cases.push_back({"mistral", {.tensor = 8}});
  // A rank with whole experts, with parts of all, and with parts of some.
  cases.push_back({"mixtral", {.tensor = 2, .expert = 2}});
  cases.push_back({"mixtral", {.tensor = 6, .expert = 3}});
  cases.push_back({"mixtral", {.tensor = 2, .pipeline = 2, .expert = 2}});
  cases.push_back({"qwen2_moe", {.tensor = 3}});
  cases.push_back({"qwen2_moe", {.tensor = 3, .expert = 3}});
  cases.push_back({"qwen2_moe", {.pipeline = 3}});
  cases.push_back({"qwen3_moe", {.tensor = 4}});
  cases.push_back({"qwen3_moe", {.tensor = 4, .expert = 2}});
  cases.push_back({"qwen3_moe", {.tensor = 2, .pipeline = 3, .expert = 2}});
  cases.push_back({"llama3", {.tensor = 2, .pipeline = 2}, 9});
  cases.push_back({"llama3", {.tensor = 2, .pipeline = 2}, 64, 2});
  cases.push_back({"llama3", {.pipeline = 3}, 11, 2});
  cases.push_back({"llama3", {.pipeline = 2}, 64, 16, DType::kI8});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Plans, ParallelTest, testing::ValuesIn(Cases()),
                         [](const auto& param) { return NameOf(param.param); });

TEST(ParallelPlanTest, RefusesWhatDoesNotFitWithTheArithmetic) {
  ModelConfig config;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.num_layers = 10;
  config.hidden_size = 64;
  config.head_dim = 16;
  config.intermediate_size = 128;
  config.vocab_size = 1000;
  const struct {
    ParallelSizes sizes;
    const char* says;
  } kCases[] = {
      {{.tensor = 4}, "6 = 1 x 4 + 2"},
      {{.tensor = 0}, "tensor-parallel-size: 0"},
      {{.pipeline = 11}, "1 .. 10"},
      {{.pipeline = 2, .layers = {4, 5}}, "4 + 5 = 9"},
      {{.pipeline = 3, .layers = {4, 6}}, "2 stages"},
      {{.pipeline = 2, .layers = {0, 10}}, "needs a layer"},
      {{.tensor = 2, .expert = 3}, "expert-parallel-size: 3"},
      {{.tensor = 2, .expert = 2}, "no experts"},
  };
  for (const auto& [sizes, says] : kCases) {
    const absl::Status status = MakePlans(config, sizes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << says;
    EXPECT_NE(std::string(status.message()).find(says), std::string::npos) << status;
  }
}

TEST(ParallelPlanTest, StagesCostAboutTheSameWithTheHead) {
  ModelConfig config;
  config.num_heads = 8;
  config.num_kv_heads = 8;
  config.num_layers = 12;
  config.hidden_size = 512;
  config.head_dim = 64;
  config.intermediate_size = 1024;
  const int64_t layer = 512 * 512 * 4 + 3 * 512 * 1024;
  config.vocab_size = static_cast<int32_t>(3 * layer / 512);  // the head costs as much as three layers
  const auto plans = *MakePlans(config, {.pipeline = 3});
  std::vector<int64_t> layers;
  for (const ParallelPlan& plan : plans) layers.push_back(plan.layers.count);
  EXPECT_EQ(layers, (std::vector<int64_t>{5, 5, 2}));
}

}  // namespace
}  // namespace weft
