// The logits themselves of a model that is spread over ranks, beside those of one rank; and what of INT8 is equal.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "tests/engine/sharded_model.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

std::vector<Batch> TwoChunks() {
  std::vector<int32_t> tokens;
  for (int t = 0; t < 40; ++t) tokens.push_back((t * 104729 + 11) % 200);
  return {ScoredChunk({tokens.begin(), tokens.begin() + 29}, 0), ScoredChunk({tokens.begin() + 29, tokens.end()}, 29)};
}

Rows Logits(const std::string& model, const ParallelSizes& sizes, DType dtype) {
  const std::string dir = FixtureModel(model);
  const ModelConfig config = *LoadModelConfig(dir);
  const EngineSetup setup{.model_dir = dir, .weights = {.dtype = dtype}, .parallel = sizes};
  return LogitsOfRanks(config, SmallSetup(config, setup), TwoChunks());
}

// The greatest difference of any two logits, over the greatest magnitude of their row.
double RelativeDifference(const Rows& expected, const Rows& actual) {
  double worst = 0;
  EXPECT_EQ(actual.size(), expected.size());
  for (size_t row = 0; row < expected.size(); ++row) {
    EXPECT_EQ(actual[row].size(), expected[row].size());
    double difference = 0, magnitude = 0;
    for (size_t v = 0; v < expected[row].size(); ++v) {
      magnitude = std::max(magnitude, std::abs(double{expected[row][v]}));
      difference = std::max(difference, std::abs(double{actual[row][v]} - double{expected[row][v]}));
    }
    worst = std::max(worst, difference / magnitude);
  }
  return worst;
}

// Root mean square of the differences, over that of the logits.
double MeanDifference(const Rows& expected, const Rows& actual) {
  double squares = 0, of_differences = 0;
  for (size_t row = 0; row < expected.size(); ++row) {
    for (size_t v = 0; v < expected[row].size(); ++v) {
      squares += std::pow(double{expected[row][v]}, 2);
      of_differences += std::pow(double{actual[row][v]} - double{expected[row][v]}, 2);
    }
  }
  return std::sqrt(of_differences / squares);
}

struct Case {
  std::string model;
  ParallelSizes sizes;
};

std::string NameOf(const Case& c) {
  return c.model + "_tp" + std::to_string(c.sizes.tensor) + "_pp" + std::to_string(c.sizes.pipeline) + "_ep" +
         std::to_string(c.sizes.expert);
}
void PrintTo(const Case& c, std::ostream* out) { *out << NameOf(c); }

class ShardedLogitsTest : public testing::TestWithParam<Case> {};

// Ranks add in another order; stages change no bit.
TEST_P(ShardedLogitsTest, AreThoseOfOneRank) {
  const Rows whole = Logits(GetParam().model, {}, DType::kF32);
  const double difference = RelativeDifference(whole, Logits(GetParam().model, GetParam().sizes, DType::kF32));
  RecordProperty("difference", std::to_string(difference * 1e6) + "e-6");
  EXPECT_LE(difference, GetParam().sizes.tensor == 1 ? 0 : 1e-5);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const char* const model : {"llama2", "llama3", "llama_bias", "mistral", "qwen2", "qwen2_window"}) {
    const int num_heads = LoadModelConfig(FixtureModel(model))->num_heads;
    for (const int tensor : {2, 4}) {
      if (num_heads % tensor == 0) cases.push_back({model, {.tensor = tensor}});
    }
    cases.push_back({model, {.pipeline = 2}});
    cases.push_back({model, {.tensor = 2, .pipeline = 2}});
  }
  for (const ParallelSizes& sizes : {ParallelSizes{.tensor = 2}, ParallelSizes{.tensor = 3},
                                     ParallelSizes{.pipeline = 2}, ParallelSizes{.tensor = 2, .pipeline = 2}}) {
    cases.push_back({"qwen3", sizes});
  }
  for (const ParallelSizes& sizes : {ParallelSizes{.tensor = 2}, ParallelSizes{.tensor = 2, .expert = 2},
                                     ParallelSizes{.pipeline = 2}, ParallelSizes{.tensor = 6, .expert = 3}}) {
    cases.push_back({"mixtral", sizes});
  }
  for (const ParallelSizes& sizes :
       {ParallelSizes{.tensor = 3}, ParallelSizes{.tensor = 3, .expert = 3}, ParallelSizes{.pipeline = 3}}) {
    cases.push_back({"qwen2_moe", sizes});
  }
  for (const ParallelSizes& sizes : {ParallelSizes{.tensor = 2}, ParallelSizes{.tensor = 4, .expert = 2},
                                     ParallelSizes{.pipeline = 2}, ParallelSizes{.tensor = 4}}) {
    cases.push_back({"qwen3_moe", sizes});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Plans, ShardedLogitsTest, testing::ValuesIn(Cases()),
                         [](const auto& param) { return NameOf(param.param); });

// INT8 with tensor ranks isn't the INT8 of one rank, bit by bit: a row-parallel linear has a scale for each channel and
// rank, of the weights and of the activations, where one rank has one for the whole channel. What is equal:

// ... a column-parallel linear, whose channels are whole, to the bit.
TEST(Int8ShardsTest, ColumnsAreThoseOfOneRankToTheBit) {
  constexpr int64_t kTokens = 5, kIn = 96, kOut = 64, kRanks = 4;
  const auto backend = *OpenDevice({.num_threads = 1});
  std::vector<float> w(kOut * kIn), x(kTokens * kIn), whole(kTokens * kOut), share(kTokens * kOut / kRanks);
  for (size_t i = 0; i < w.size(); ++i) w[i] = std::sin(static_cast<float>(i * i % 977));
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::cos(static_cast<float>(i * 31 % 557));
  const Tensor input = DenseTensor(x.data(), DType::kF32, kTokens, kIn);
  const auto run = [&](int64_t begin, int64_t count, std::vector<float>& out) {
    const HostMatrix rows{w.data() + begin * kIn, DType::kF32, count, kIn};
    const Weight weight = *backend->MakeWeight({&rows, 1}, {}, DType::kI8);
    backend->Linear(input, weight, DenseTensor(out.data(), DType::kF32, kTokens, count));
    EXPECT_TRUE(backend->Synchronize().ok());
  };
  run(0, kOut, whole);
  constexpr int64_t kShare = kOut / kRanks;
  for (int64_t rank = 0; rank < kRanks; ++rank) {
    run(rank * kShare, kShare, share);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t c = 0; c < kShare; ++c) {
        EXPECT_EQ(share[static_cast<size_t>(t * kShare + c)], whole[static_cast<size_t>(t * kOut + rank * kShare + c)]);
      }
    }
  }
}

// ... stages, to the bit, whatever the tensor size.
TEST(Int8ShardsTest, StagesChangeNoBit) {
  EXPECT_EQ(Logits("llama3", {.pipeline = 3}, DType::kI8), Logits("llama3", {}, DType::kI8));
  EXPECT_EQ(Logits("llama3", {.tensor = 2, .pipeline = 2}, DType::kI8), Logits("llama3", {.tensor = 2}, DType::kI8));
  EXPECT_EQ(Logits("mixtral", {.tensor = 2, .pipeline = 2, .expert = 2}, DType::kI8),
            Logits("mixtral", {.tensor = 2, .expert = 2}, DType::kI8));
}

// ... and the error: ranks have more scales, and are no further from F32 than one rank is.
TEST(Int8ShardsTest, RanksAreAsNearToF32AsOneRankIs) {
  for (const char* const model : {"llama2", "llama3", "mistral", "qwen2"}) {
    const Rows exact = Logits(model, {}, DType::kF32);
    const double of_one = MeanDifference(exact, Logits(model, {}, DType::kI8));
    for (const int tensor : {2, 4}) {
      if (LoadModelConfig(FixtureModel(model))->num_heads % tensor != 0) continue;
      const double of_ranks = MeanDifference(exact, Logits(model, {.tensor = tensor}, DType::kI8));
      EXPECT_GT(of_ranks, 0) << model;
      EXPECT_LE(of_ranks, 1.1 * of_one) << model << ", tensor " << tensor;
      RecordProperty(std::string(model) + std::to_string(tensor), std::to_string(of_ranks / of_one));
    }
  }
}

}  // namespace
}  // namespace weft
