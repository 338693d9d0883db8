#include "server/sampling.h"

#include <vector>

#include "gtest/gtest.h"

namespace weft {
namespace {

TEST(SamplingTest, TheRequestWinsOverTheModelsDefaultsOverTheNeutralValue) {
  GenerationConfig defaults;
  defaults.temperature = 0.6f;
  defaults.top_p = 0.9f;
  defaults.top_k = 20;
  GenerateRequest request;
  request.top_p = 0.5;
  const SamplingParams sampling = MakeSampling(request, defaults, 9);
  EXPECT_FLOAT_EQ(sampling.top_p, 0.5f);
  EXPECT_FLOAT_EQ(sampling.temperature, 0.6f);
  EXPECT_EQ(sampling.top_k, 20);
  EXPECT_FLOAT_EQ(sampling.min_p, 0.0f);
  EXPECT_FLOAT_EQ(sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(sampling.seed, 9u);
  EXPECT_EQ(sampling.num_logprobs, -1);
}

TEST(SamplingTest, AllIsWrittenAsZero) {
  GenerationConfig defaults;
  defaults.top_k = 50;
  for (const int64_t top_k : {-1, 0}) {
    GenerateRequest request;
    request.top_k = top_k;
    EXPECT_EQ(MakeSampling(request, defaults, 0).top_k, 0);
  }
}

TEST(SamplingTest, AVanishingTemperatureIsGreedy) {
  for (const double temperature : {0.0, 1e-30, 1e-5}) {
    GenerateRequest request;
    request.temperature = temperature;
    EXPECT_EQ(MakeSampling(request, {}, 0).temperature, 0.0f) << temperature;
  }
}

TEST(SamplingTest, StopIdsAreTheModelsAndTheRequestsOnceEach) {
  GenerateRequest request;
  request.stop_token_ids = {7, 2, 7};
  EXPECT_EQ(MakeStop(request, {2, 3}, 5).stop_token_ids, (std::vector<int32_t>{2, 3, 7}));
  request.ignore_eos = true;
  EXPECT_EQ(MakeStop(request, {2, 3}, 5).stop_token_ids, (std::vector<int32_t>{2, 7}));
}

}  // namespace
}  // namespace weft
