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
#include "tests/engine/parallel_case.h"
#include "tests/engine/temp_model.h"
#include "tests/fakes/hand_driven_replica.h"

namespace weft {
namespace {

class ParallelTest : public testing::TestWithParam<Case> {};

TEST_P(ParallelTest, OutputsAreThoseOfOneRank) {
  const Case& c = GetParam();
  const ModelConfig config = *LoadModelConfig(FixtureModel(c.model));
  auto engine = OpenOneEngine(config, SetupOf(c, config));
  ASSERT_TRUE(engine.ok()) << engine.status();
  ExpectEqual(c, RunAll(*std::move(engine), c.cancels), RunWhole(c));
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

INSTANTIATE_TEST_SUITE_P(Families, ParallelTest, testing::ValuesIn(FamiliesByPlans()),
                         [](const auto& param) { return NameOf(param.param); });

// A plan that is refused by mistake would be left out of the rest in silence.
TEST(ParallelPlanTest, NoPlanOfAFamilyIsLeftOut) { EXPECT_EQ(FamiliesByPlans().size(), 66); }

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
