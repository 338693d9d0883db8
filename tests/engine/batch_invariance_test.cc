// A request's logits are the same bits, whoever shares its steps and however its prompt is cut.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/engine/model_runner.h"

namespace weft {
namespace {

std::string ModelDir() { return std::string(WEFT_SOURCE_DIR) + "/tests/fixtures/models/llama3"; }

std::vector<int32_t> Tokens(int count, int seed, int32_t vocab_size) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((seed * 7919 + i * 104729) % vocab_size);
  return tokens;
}

class BatchInvarianceTest : public testing::TestWithParam<DType> {};

TEST_P(BatchInvarianceTest, AloneOrAmong63Others) {
  ModelRunner runner(ModelDir(), {.weights = GetParam()});
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
  ModelRunner runner(ModelDir(), {.weights = GetParam()});
  const std::vector<int32_t> prompt = Tokens(150, 1, runner.config().vocab_size);
  const std::vector<float> whole = runner.LogitsInChunks(prompt, prompt.size());
  for (const size_t chunk : {1u, 7u, 64u}) EXPECT_EQ(runner.LogitsInChunks(prompt, chunk), whole) << chunk;
}

TEST_P(BatchInvarianceTest, OnOneThreadOrOnThree) {
  ModelRunner one(ModelDir(), {.weights = GetParam(), .num_threads = 1});
  ModelRunner three(ModelDir(), {.weights = GetParam(), .num_threads = 3});
  const std::vector<int32_t> prompt = Tokens(150, 2, one.config().vocab_size);
  EXPECT_EQ(one.LogitsInChunks(prompt, prompt.size()), three.LogitsInChunks(prompt, prompt.size()));
}

std::string WeightTypeName(const testing::TestParamInfo<DType>& type) {
  constexpr const char* kNames[] = {"F32", "BF16", "F16", "I8"};
  return kNames[static_cast<size_t>(type.param)];
}

INSTANTIATE_TEST_SUITE_P(WeightTypes, BatchInvarianceTest,
                         testing::Values(DType::kF32, DType::kBF16, DType::kF16, DType::kI8), WeightTypeName);

}  // namespace
}  // namespace weft
