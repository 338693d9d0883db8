// Requests of every kind, and models spread over ranks in every way that must not change what they give.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine_setup.h"
#include "tests/engine/open_engine.h"
#include "tests/engine/temp_model.h"
#include "tests/fakes/hand_driven_replica.h"

namespace weft {

inline constexpr int kNumRequests = 12;
inline constexpr int kMaxModelLen = 120;

struct Output {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<float> scores;  // of the prompt
  bool was_cancelled = false;
};

// Prompts of different lengths; greedy and drawn, with every cut, penalty and bias.
inline std::unique_ptr<Request> MakeRequest(int i) {
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
  bool cancels = false;  // some requests, in the middle
};

inline std::string NameOf(const Case& c) {
  std::string name = c.model + "_tp" + std::to_string(c.sizes.tensor) + "_pp" + std::to_string(c.sizes.pipeline);
  if (c.sizes.expert > 1) name += "_ep" + std::to_string(c.sizes.expert);
  if (!c.sizes.layers.empty()) name += "_uneven";
  return name + (c.num_sequences_of_cache < 4 ? "_few_blocks" : "") + (c.max_num_batched_tokens < 20 ? "_chunks" : "") +
         (c.weights == DType::kI8 ? "_int8" : "") + (c.cancels ? "_cancels" : "");
}
inline void PrintTo(const Case& c, std::ostream* out) { *out << NameOf(c); }

inline EngineSetup SetupOf(const Case& c, const ModelConfig& config) {
  EngineSetup setup{.model_dir = FixtureModel(c.model),
                    .weights = {.dtype = c.weights},
                    .device = {.num_threads = 2},
                    .parallel = c.sizes,
                    .max_model_len = kMaxModelLen,
                    .max_num_seqs = 8,
                    .max_num_batched_tokens = c.max_num_batched_tokens};
  setup.kv_cache_bytes = *KvCacheBytes(config, setup, c.num_sequences_of_cache * kMaxModelLen);
  return setup;
}

// Every fixture model in all of these plans that its heads, layers and experts allow: with arrivals, cuts, preemption
// and cancels.
inline std::vector<Case> FamiliesByPlans() {
  const ParallelSizes kPlans[] = {{.tensor = 2},
                                  {.tensor = 3},
                                  {.tensor = 4},
                                  {.pipeline = 2},
                                  {.pipeline = 3},
                                  {.tensor = 2, .pipeline = 2},
                                  {.tensor = 2, .expert = 2},
                                  {.tensor = 3, .expert = 3},
                                  {.tensor = 2, .pipeline = 2, .expert = 2}};
  std::vector<Case> cases;
  for (const char* const model :
       {"llama2", "llama2_linear", "llama2_dynamic", "llama2_yarn", "llama_bias", "llama3", "mistral", "qwen2",
        "qwen2_window", "qwen3", "mixtral", "qwen2_moe", "qwen2_moe_window", "qwen3_moe"}) {
    for (const ParallelSizes& plan : kPlans) {
      Case c{model, plan, 17, 2};
      c.cancels = true;
      if (MakePlans(*LoadModelConfig(FixtureModel(model)), plan).ok()) cases.push_back(std::move(c));
    }
  }
  return cases;
}

// Once it has its first token; or, of one whose prompt is scored, its first score.
inline bool IsCancelled(int i) { return i % 4 == 3; }

inline std::vector<Output> RunAll(std::unique_ptr<Engine> engine, bool cancels = false) {
  HandDrivenReplica replica(std::move(engine));
  std::mt19937 rng(7);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < kNumRequests; ++i) {
    sinks.push_back(replica.Push(MakeRequest(i)));
    for (auto steps = rng() % 6; steps > 0; --steps) replica.Step();
    if (!cancels || !IsCancelled(i)) continue;
    const RecordingSink& sink = *sinks.back();
    while (sink.tokens.empty() && sink.scores.empty() && !sink.finish.has_value()) replica.Step();
    sinks.back()->cancelled = true;
  }
  replica.RunUntilIdle();
  EXPECT_EQ(replica.stats().num_free_blocks, replica.stats().num_blocks);
  std::vector<Output> outputs;
  for (const auto& sink : sinks) {
    Output& output = outputs.emplace_back(
        Output{sink->tokens, sink->logprobs, {}, sink->finish->reason == FinishReason::kCancelled});
    for (const SampledToken& score : sink->scores) output.scores.push_back(score.logprob);
  }
  return outputs;
}

// On one rank, in this process.
inline std::vector<Output> RunWhole(Case c) {
  c.sizes = {};
  const ModelConfig config = *LoadModelConfig(FixtureModel(c.model));
  return RunAll(*OpenOneEngine(config, SetupOf(c, config)));
}

inline void ExpectNear(const std::vector<float>& actual, const std::vector<float>& expected, double tolerance) {
  ASSERT_LE(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected[i], tolerance) << i;
}

// Stages change no bit; tensor ranks sum in another order.
inline void ExpectEqual(const Case& c, const std::vector<Output>& actual, const std::vector<Output>& expected) {
  const double tolerance = c.sizes.tensor == 1 ? 0 : 2e-4;
  for (size_t i = 0; i < kNumRequests; ++i) {
    std::vector<int32_t> tokens = expected[i].tokens;
    ASSERT_EQ(actual[i].was_cancelled, c.cancels && IsCancelled(static_cast<int>(i))) << "request " << i;
    if (actual[i].was_cancelled) {
      ASSERT_LT(actual[i].tokens.size(), tokens.size()) << "request " << i;
      tokens.resize(actual[i].tokens.size());
    }
    EXPECT_EQ(actual[i].tokens, tokens) << "request " << i;
    ASSERT_EQ(actual[i].logprobs.size(), tokens.size()) << "request " << i;
    SCOPED_TRACE("request " + std::to_string(i));
    ExpectNear(actual[i].logprobs, expected[i].logprobs, tolerance);
    ExpectNear(actual[i].scores, expected[i].scores, tolerance);
    if (actual[i].was_cancelled) continue;
    EXPECT_EQ(actual[i].scores.size(), expected[i].scores.size());
  }
}

}  // namespace weft
