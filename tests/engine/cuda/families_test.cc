// Every family on a CUDA device whose kernels run on the CPU, beside the CPU backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/engine/parallel_case.h"
#include "tests/engine/sharded_model.h"

namespace weft {
namespace {

// A sanitizer makes what takes seconds take minutes: then it is some of the families, which together have every kernel.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
const std::vector<const char*> kLogitsOf = {"llama_bias", "qwen3", "qwen2_moe_window"};
const std::vector<Case> kTokensOf = {{"llama_bias", {}, 17, 2}, {"llama_bias", {.tensor = 2}, 17, 2}};
#else
const std::vector<const char*> kLogitsOf = {
    "llama2", "llama2_linear", "llama2_dynamic", "llama2_yarn", "llama_bias", "llama3",           "mistral",
    "qwen2",  "qwen2_window",  "qwen3",          "mixtral",     "qwen2_moe",  "qwen2_moe_window", "qwen3_moe"};
const std::vector<Case> kTokensOf = {{"llama3", {}, 17, 2},
                                     {"qwen2_window", {}, 17, 2},
                                     {"qwen3_moe", {}, 17, 2},
                                     {"llama3", {.tensor = 2}, 17, 2},
                                     {"llama3", {.pipeline = 2}, 17, 2},
                                     {"qwen3_moe", {.tensor = 2, .expert = 2}, 17, 2}};
#endif

class TokensTest : public testing::TestWithParam<Case> {};

// With F32 activations all that differs is the order of sums: beside other requests, in chunks, with preemption; on one
// rank and on several.
TEST_P(TokensTest, AreThoseOfTheCpu) {
  const Case& c = GetParam();
  const std::vector<Output> expected = RunWhole(c);
  const ModelConfig config = *LoadModelConfig(FixtureModel(c.model));
  EngineSetup setup = SetupOf(c, config);
  setup.device = {.kind = DeviceKind::kCuda, .num_threads = 1, .activations = DType::kF32};
  const std::vector<Output> outputs = RunAll(*OpenOneEngine(config, setup));
  for (size_t i = 0; i < outputs.size(); ++i) {
    EXPECT_EQ(outputs[i].tokens, expected[i].tokens) << i;
    ExpectNear(outputs[i].logprobs, expected[i].logprobs, 2e-4);
    ExpectNear(outputs[i].scores, expected[i].scores, 2e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, TokensTest, testing::ValuesIn(kTokensOf), [](const auto& c) { return NameOf(c.param); });

class LogitsTest : public testing::TestWithParam<const char*> {};

struct Precision {
  DType activations = DType::kBF16;
  DType weights = DType::kBF16;
  double tolerance = 0;  // of a row's greatest logit
};

constexpr Precision kPrecisions[] = {{DType::kF32, DType::kF32, 1e-5},
                                     {DType::kF32, DType::kI8, 5e-2},
                                     {DType::kBF16, DType::kBF16, 2e-2},
                                     {DType::kF16, DType::kF16, 8e-3},
                                     {DType::kBF16, DType::kI8, 7e-2}};

// Of a row, the greatest difference over the greatest logit; of all rows, the median: where two experts are nearly
// equal a rounding chooses the other, which is no small difference.
double MedianDifference(const Rows& rows, const Rows& expected) {
  std::vector<double> differences;
  for (size_t row = 0; row < rows.size(); ++row) {
    double greatest = 0, difference = 0;
    for (size_t i = 0; i < rows[row].size(); ++i) {
      greatest = std::max(greatest, std::fabs(static_cast<double>(expected[row][i])));
      difference = std::max(difference, std::fabs(static_cast<double>(rows[row][i]) - expected[row][i]));
    }
    differences.push_back(std::isnan(difference) ? INFINITY : difference / greatest);
  }
  std::nth_element(differences.begin(), differences.begin() + differences.size() / 2, differences.end());
  return differences[differences.size() / 2];
}

// With activations of 16 bits, or int8 weights, logits are near those of the CPU with the same weights.
TEST_P(LogitsTest, AreNearThoseOfTheCpu) {
  for (const Precision& precision : kPrecisions) {
    const ModelConfig config = *LoadModelConfig(FixtureModel(GetParam()));
    EngineSetup setup{.model_dir = FixtureModel(GetParam()), .weights = {.dtype = precision.weights}};
    std::vector<int32_t> tokens;
    for (int i = 0; i < 40; ++i) tokens.push_back((i * 37 + 5) % config.vocab_size);
    const std::vector<Batch> batches = {ScoredChunk({tokens.begin(), tokens.begin() + 23}, 0),
                                        ScoredChunk({tokens.begin() + 23, tokens.end()}, 23)};
    const Rows expected = LogitsOfRanks(config, SmallSetup(config, setup), batches);
    setup.device = {.kind = DeviceKind::kCuda, .num_threads = 1, .activations = precision.activations};
    const Rows rows = LogitsOfRanks(config, SmallSetup(config, setup), batches);
    ASSERT_EQ(rows.size(), expected.size());
    EXPECT_LT(MedianDifference(rows, expected), precision.tolerance)
        << "activations " << static_cast<int>(precision.activations) << ", weights "
        << static_cast<int>(precision.weights);
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, LogitsTest, testing::ValuesIn(kLogitsOf),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace weft
