// Every family against Hugging Face transformers: tests/fixtures/models/README.md says what golden.json holds.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/engine/model_runner.h"
#include "tests/engine/open_engine.h"
#include "tests/fakes/hand_driven_replica.h"

namespace weft {
namespace {

constexpr double kTolerance = 1e-4;

std::string ModelDir(const std::string& name) {
  return std::string(WEFT_SOURCE_DIR) + "/tests/fixtures/models/" + name;
}

nlohmann::json Golden(const std::string& name) {
  std::ifstream file(ModelDir(name) + "/golden.json");
  return nlohmann::json::parse(file);
}

class ParityTest : public testing::TestWithParam<std::string> {};

TEST_P(ParityTest, LogitsAgreeHoweverThePromptIsCut) {
  const nlohmann::json golden = Golden(GetParam());
  ModelRunner runner(ModelDir(GetParam()), {.max_model_len = golden["max_model_len"]});
  for (const nlohmann::json& c : golden["cases"]) {
    const std::vector<int32_t> prompt = c["prompt"];
    for (size_t i = 0; i < c["positions"].size(); ++i) {
      const std::vector<float> expected = c["logits"][i];
      const size_t length = c["positions"][i].get<size_t>() + 1;
      const std::vector<int32_t> prefix(prompt.begin(), prompt.begin() + static_cast<int64_t>(length));
      for (const size_t chunk : {length, size_t{1}, size_t{7}, size_t{64}}) {
        const std::vector<float> logits = runner.LogitsInChunks(prefix, chunk);
        ASSERT_EQ(logits.size(), expected.size());
        for (size_t v = 0; v < logits.size(); ++v) {
          ASSERT_NEAR(logits[v], expected[v], kTolerance)
              << "token " << v << ", prefix of " << length << " in chunks of " << chunk;
        }
      }
    }
  }
}

// The whole path below the front end: every case twice, all at once, under budgets that cut prompts everywhere. The
// second time its prompt's blocks are taken up from the prefix cache.
TEST_P(ParityTest, GreedyTokensAreEqualInABatch) {
  const nlohmann::json golden = Golden(GetParam());
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(ModelDir(GetParam()));
  ASSERT_TRUE(config.ok()) << config.status();
  for (const int budget : {1, 7, 64, 1024}) {
    EngineSetup options{.model_dir = ModelDir(GetParam()),
                        .weights = {.dtype = DType::kF32},
                        .device = {.num_threads = 2},
                        .max_model_len = golden["max_model_len"],
                        .max_num_seqs = std::min(8, budget),
                        .max_num_batched_tokens = budget};
    options.kv_cache_bytes = *KvCacheBytes(*config, options, 3 * options.max_model_len);
    auto engine = OpenOneEngine(*config, options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    HandDrivenReplica replica(*std::move(engine));
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    const size_t num_cases = golden["cases"].size();
    for (size_t i = 0; i < 2 * num_cases; ++i) {
      const nlohmann::json& c = golden["cases"][i % num_cases];
      auto request = std::make_unique<Request>();
      request->prompt = c["prompt"].get<std::vector<int32_t>>();
      request->sampling.temperature = 0;
      request->stop.max_tokens = static_cast<int32_t>(c["greedy"].size());
      sinks.push_back(replica.Push(std::move(request)));
    }
    replica.RunUntilIdle();
    EXPECT_GT(replica.stats().num_cached_tokens, 0);
    for (size_t i = 0; i < sinks.size(); ++i) {
      const std::vector<int32_t> expected = golden["cases"][i % num_cases]["greedy"];
      EXPECT_EQ(sinks[i]->tokens, expected) << "case " << i << ", budget " << budget;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ParityTest,
                         testing::Values("llama2", "llama2_linear", "llama2_dynamic", "llama2_yarn", "llama3",
                                         "llama_bias", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen2_moe_window",
                                         "qwen2_window", "qwen3", "qwen3_moe"),
                         [](const auto& family) { return family.param; });

}  // namespace
}  // namespace weft
