// A request's logits are the same bits, whoever shares its steps and however its prompt is cut.
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "tests/engine/model_runner.h"

namespace weft {
namespace {

// A model of tests/fixtures/models, and how its weights are stored.
using Case = std::tuple<const char*, DType>;

std::vector<int32_t> Tokens(int count, int seed, int32_t vocab_size) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((seed * 7919 + i * 104729) % vocab_size);
  return tokens;
}

class BatchInvarianceTest : public testing::TestWithParam<Case> {
 protected:
  static ModelRunner MakeRunner(int num_threads = 2) {
    const auto& [model, weights] = GetParam();
    return ModelRunner(std::string(WEFT_SOURCE_DIR) + "/tests/fixtures/models/" + model,
                       {.weights = weights, .num_threads = num_threads});
  }
};

TEST_P(BatchInvarianceTest, AloneOrAmong63Others) {
  ModelRunner runner = MakeRunner();
  const int32_t vocab_size = runner.config().vocab_size;
  const std::vector<int32_t> prompt = Tokens(100, 0, vocab_size);
  const std::vector<float> alone_prompt = runner.LogitsInChunks(prompt, 100);
  const std::vector<float> alone_next = runner.Step({{0, {5}}})[0];

  runner.Restart(0);
  std::vector<ModelRunner::Chunk> chunks, next;
  for (int s = 0; s < ModelRunner::kMaxSequences; ++s) {
    chunks.push_back({s, s == 0 ? prompt : Tokens(1 + s * 37 % 120, s, vocab_size)});
    next.push_back({s, {5}});
  }
  EXPECT_EQ(runner.Step(chunks)[0], alone_prompt);
  EXPECT_EQ(runner.Step(next)[0], alone_next);
}

TEST_P(BatchInvarianceTest, WholeOrInChunks) {
  ModelRunner runner = MakeRunner();
  const std::vector<int32_t> prompt = Tokens(150, 1, runner.config().vocab_size);
  const std::vector<float> whole = runner.LogitsInChunks(prompt, prompt.size());
  for (const size_t chunk : {1u, 7u, 64u}) EXPECT_EQ(runner.LogitsInChunks(prompt, chunk), whole) << chunk;
}

TEST_P(BatchInvarianceTest, OnOneThreadOrOnThree) {
  ModelRunner one = MakeRunner(1);
  ModelRunner three = MakeRunner(3);
  const std::vector<int32_t> prompt = Tokens(150, 2, one.config().vocab_size);
  EXPECT_EQ(one.LogitsInChunks(prompt, prompt.size()), three.LogitsInChunks(prompt, prompt.size()));
}

std::string CaseName(const testing::TestParamInfo<Case>& test) {
  constexpr const char* kNames[] = {"F32", "BF16", "F16", "I8"};
  const auto& [model, weights] = test.param;
  return std::string(model) + kNames[static_cast<size_t>(weights)];
}

INSTANTIATE_TEST_SUITE_P(Models, BatchInvarianceTest,
                         testing::Combine(testing::Values("llama3", "mixtral", "qwen2_moe", "qwen3_moe"),
                                          testing::Values(DType::kF32, DType::kBF16, DType::kF16, DType::kI8)),
                         CaseName);

}  // namespace
}  // namespace weft
