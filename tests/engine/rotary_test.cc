#include "engine/rotary.h"

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

using Kind = RopeScaling::Kind;

class RotaryTest : public ::testing::TestWithParam<const char*> {};

TEST_P(RotaryTest, AgreesWithTransformers) {
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(FixtureModel(GetParam()));
  ASSERT_TRUE(config.ok()) << config.status();
  const nlohmann::json golden = nlohmann::json::parse(ReadAll(FixtureModel(GetParam()) + "/golden.json"));
  const auto max_model_len = golden["max_model_len"].get<int64_t>();
  const std::vector<float> table = MakeCosSinTable(*config, max_model_len);
  const auto width = static_cast<size_t>(config->head_dim);
  ASSERT_EQ(table.size(), static_cast<size_t>(max_model_len) * width);
  const nlohmann::json& rotary = golden["rotary"];
  ASSERT_GE(rotary["positions"].size(), 5u);
  for (size_t i = 0; i < rotary["positions"].size(); ++i) {
    const auto position = rotary["positions"][i].get<size_t>();
    const auto expected = rotary["cos_sin"][i].get<std::vector<float>>();
    ASSERT_EQ(expected.size(), width);
    for (size_t column = 0; column < width; ++column) {
      // One unit in the last place of a frequency, times the position, may lie between two mathematics libraries.
      EXPECT_NEAR(table[position * width + column], expected[column], 2e-5)
          << "position " << position << " column " << column;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RotaryTest,
                         ::testing::Values("llama2", "llama2_linear", "llama2_dynamic", "llama2_yarn", "llama3",
                                           "mistral", "qwen2", "qwen3"),
                         [](const auto& test) { return std::string(test.param); });

ModelConfig Scaled(Kind kind, double factor) {
  ModelConfig config;
  config.head_dim = 16;
  config.max_position_embeddings = 64;
  config.rope_scaling.kind = kind;
  config.rope_scaling.factor = factor;
  config.rope_scaling.original_max_position_embeddings = 64;
  return config;
}

TEST(RotaryTableTest, DynamicScalingIsTheTrainedTableWithinTheTrainedContext) {
  const std::vector<float> trained = MakeCosSinTable(Scaled(Kind::kNone, 1), 64);
  EXPECT_EQ(MakeCosSinTable(Scaled(Kind::kDynamic, 4), 64), trained);
  EXPECT_EQ(MakeCosSinTable(Scaled(Kind::kDynamic, 4), 10), std::vector<float>(trained.begin(), trained.begin() + 160));
  EXPECT_NE(MakeCosSinTable(Scaled(Kind::kDynamic, 4), 65), MakeCosSinTable(Scaled(Kind::kNone, 1), 65));
}

TEST(RotaryTableTest, YarnScalesByItsAttentionFactor) {
  struct Case {
    std::optional<double> attention_factor, mscale, mscale_all_dim;
    double expected;
  };
  const double log4 = std::log(4.0);
  const std::vector<Case> cases = {
      {std::nullopt, std::nullopt, std::nullopt, 0.1 * log4 + 1},
      {1.25, 0.5, 0.7, 1.25},
      {std::nullopt, 0.5, 0.7, (0.05 * log4 + 1) / (0.07 * log4 + 1)},
      {std::nullopt, 0.5, std::nullopt, 0.1 * log4 + 1},
  };
  for (const Case& test : cases) {
    ModelConfig config = Scaled(Kind::kYarn, 4);
    config.rope_scaling.attention_factor = test.attention_factor;
    config.rope_scaling.mscale = test.mscale;
    config.rope_scaling.mscale_all_dim = test.mscale_all_dim;
    // cos(0) = 1 at position 0.
    EXPECT_FLOAT_EQ(MakeCosSinTable(config, 1)[0], static_cast<float>(test.expected));
  }
}

// The golden model's correction range begins at dimension 0; here both ends lie between dimensions, at 0.8119
// and 2.6181.
TEST(RotaryTableTest, YarnBlendsBetweenTheEndsOfItsCorrectionRange) {
  struct Case {
    bool truncate;
    std::vector<double> interpolated_share;  // of dimensions 0, 1, ...
  };
  const std::vector<Case> cases = {
      {true, {0, 1.0 / 3, 2.0 / 3, 1, 1}},  // from 0 to 3
      {false, {0, 0.104153, 0.657808, 1, 1}},
  };
  for (const Case& test : cases) {
    ModelConfig config = Scaled(Kind::kYarn, 4);
    config.rope_scaling.beta_fast = 4;
    config.rope_scaling.beta_slow = 0.5;
    config.rope_scaling.truncate = test.truncate;
    const std::vector<float> table = MakeCosSinTable(config, 2);
    const float* row = table.data() + 16;  // position 1: the angle is the frequency
    for (size_t i = 0; i < test.interpolated_share.size(); ++i) {
      const double trained = std::pow(1e4, -static_cast<double>(i) / 8);
      const double share = test.interpolated_share[i];
      EXPECT_NEAR(std::atan2(row[8 + i], row[i]), trained * (share / 4 + 1 - share), 1e-5)
          << test.truncate << ", " << i;
    }
  }
}

}  // namespace
}  // namespace weft
