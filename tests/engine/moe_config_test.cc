// What config.json says about experts.
#include "engine/moe_config.h"

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const json kDense = json::parse(R"({
  "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8,
  "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048})");

json Family(const char* model_type, const char* architecture) {
  json config = kDense;
  config["model_type"] = model_type;
  config["architectures"] = {architecture};
  return config;
}

const json kMixtral = Family("mixtral", "MixtralForCausalLM");
const json kQwen2 = Family("qwen2_moe", "Qwen2MoeForCausalLM");
const json kQwen3 = Family("qwen3_moe", "Qwen3MoeForCausalLM");

json With(json config, const char* changes) {
  config.update(json::parse(changes));
  return config;
}

absl::StatusOr<ModelConfig> Load(const std::string& text) {
  const TempDir dir;
  dir.Write("config.json", text);
  return LoadModelConfig(dir.path());
}

TEST(MoeConfigTest, RefusesWhatNoModelCanBe) {
  struct Case {
    const char* what;
    json config;
    const char* code;
    const char* field;  // that the message names
  };
  const std::vector<Case> cases = {
      {"architecture of a dense model", With(kQwen3, R"({"architectures": ["Qwen3ForCausalLM"]})"), "unsupported_model",
       "architectures"},
      {"0 experts", With(kMixtral, R"({"num_local_experts": 0})"), "out_of_range", "num_local_experts"},
      {"0 experts", With(kQwen3, R"({"num_experts": 0})"), "out_of_range", "num_experts"},
      {"-1 experts", With(kQwen2, R"({"num_experts": -1})"), "out_of_range", "num_experts"},
      {"2^40 experts", With(kQwen2, R"({"num_experts": 1099511627776})"), "out_of_range", "num_experts"},
      {"experts as a string", With(kQwen2, R"({"num_experts": "8"})"), "missing_field", "num_experts"},
      {"experts as a float", With(kQwen2, R"({"num_experts": 8.0})"), "missing_field", "num_experts"},
      {"two numbers of experts", With(kQwen3, R"({"num_experts": 8, "num_local_experts": 9})"), "inconsistent",
       "num_experts"},
      {"too many experts in all", With(kQwen3, R"({"num_experts": 4096, "num_hidden_layers": 17})"), "out_of_range",
       "num_experts"},
      {"none chosen", With(kMixtral, R"({"num_experts_per_tok": 0})"), "out_of_range", "num_experts_per_tok"},
      {"more chosen than there are", With(kMixtral, R"({"num_experts_per_tok": 9})"), "inconsistent",
       "num_experts_per_tok"},
      {"more chosen by default than there are", With(kQwen3, R"({"num_experts": 7})"), "inconsistent",
       "num_experts_per_tok"},
      {"expert size 0", With(kQwen3, R"({"moe_intermediate_size": 0})"), "out_of_range", "moe_intermediate_size"},
      {"expert size 2^21", With(kQwen2, R"({"moe_intermediate_size": 2097152})"), "out_of_range",
       "moe_intermediate_size"},
      {"shared size 0", With(kQwen2, R"({"shared_expert_intermediate_size": 0})"), "out_of_range",
       "shared_expert_intermediate_size"},
      {"step 0", With(kQwen3, R"({"decoder_sparse_step": 0})"), "out_of_range", "decoder_sparse_step"},
      {"step -1", With(kQwen2, R"({"decoder_sparse_step": -1})"), "out_of_range", "decoder_sparse_step"},
      {"a layer beyond the last", With(kQwen3, R"({"mlp_only_layers": [0, 4]})"), "out_of_range", "mlp_only_layers"},
      {"a layer before the first", With(kQwen3, R"({"mlp_only_layers": [-1]})"), "out_of_range", "mlp_only_layers"},
      {"a layer of 2^64-1", With(kQwen3, R"({"mlp_only_layers": [18446744073709551615]})"), "out_of_range",
       "mlp_only_layers"},
      {"a layer as a string", With(kQwen3, R"({"mlp_only_layers": ["0"]})"), "missing_field", "mlp_only_layers"},
      {"a layer that is no list", With(kQwen3, R"({"mlp_only_layers": 0})"), "missing_field", "mlp_only_layers"},
      {"normalised, perhaps", With(kQwen3, R"({"norm_topk_prob": 1})"), "missing_field", "norm_topk_prob"},
      {"biased, perhaps", With(kQwen2, R"({"qkv_bias": "yes"})"), "missing_field", "qkv_bias"},
      {"quantised", With(kMixtral, R"({"quantization_config": {"quant_method": "awq"}})"), "unsupported_quantization",
       "quantization_config"},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.what);
    const absl::StatusOr<ModelConfig> config = Load(test.config.dump());
    ASSERT_FALSE(config.ok());
    const std::string message(config.status().message());
    EXPECT_EQ(ErrorCode(message), test.code) << message;
    EXPECT_THAT(message, HasSubstr(test.field));
    EXPECT_EQ(message.find('\n'), std::string::npos) << "an error is one line";
  }
}

TEST(MoeConfigTest, ReadsAllOfAQwen2Moe) {
  const json text = With(kQwen2, R"({"num_experts": 16, "num_experts_per_tok": 3, "moe_intermediate_size": 40,
      "shared_expert_intermediate_size": 50, "norm_topk_prob": true, "decoder_sparse_step": 2, "mlp_only_layers": [1]})");
  const absl::StatusOr<ModelConfig> config = Load(text.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->intermediate_size, 128);
  EXPECT_EQ(config->moe.num_experts, 16);
  EXPECT_EQ(config->moe.num_experts_per_token, 3);
  EXPECT_EQ(config->moe.intermediate_size, 40);
  EXPECT_EQ(config->moe.shared_intermediate_size, 50);
  EXPECT_TRUE(config->moe.normalize_weights);
  EXPECT_THAT(config->moe.sparse, ElementsAre(false, false, false, true));
  EXPECT_FALSE(config->moe.IsSparseThroughout());
}

TEST(MoeConfigTest, FamiliesDifferByFields) {
  struct Case {
    const char* what;
    json config;
    std::function<bool(const ModelConfig&)> holds;
  };
  const auto window = [](std::vector<int64_t> expected) {
    return [expected](const ModelConfig& c) { return c.sliding_window == expected; };
  };
  const std::vector<Case> cases = {
      {"a dense model has none", Family("qwen3", "Qwen3ForCausalLM"),
       [](const ModelConfig& c) { return c.moe.num_experts == 0 && c.moe.sparse.empty() && !c.moe.IsSparse(0); }},
      {"Mixtral: defaults", kMixtral,
       [](const ModelConfig& c) {
         return c.moe.num_experts == 8 && c.moe.num_experts_per_token == 2 && c.moe.intermediate_size == 128 &&
                c.moe.shared_intermediate_size == 0 && c.moe.normalize_weights && c.moe.IsSparseThroughout() &&
                c.rope_theta == 1e6 && !c.qkv_bias && !c.qk_norm;
       }},
      {"Mixtral: theta", With(kMixtral, R"({"rope_theta": 5e5})"),
       [](const ModelConfig& c) { return c.rope_theta == 5e5; }},
      {"Mixtral: always normalised", With(kMixtral, R"({"norm_topk_prob": false})"),
       [](const ModelConfig& c) { return c.moe.normalize_weights; }},
      {"Mixtral: no window", kMixtral, window({0, 0, 0, 0})},
      {"Mixtral: window", With(kMixtral, R"({"sliding_window": 16})"), window({16, 16, 16, 16})},
      {"Mixtral: num_experts", With(kMixtral, R"({"num_experts": 5})"),
       [](const ModelConfig& c) { return c.moe.num_experts == 5; }},
      {"Qwen2: defaults", kQwen2,
       [](const ModelConfig& c) {
         return c.moe.num_experts == 60 && c.moe.num_experts_per_token == 4 && c.moe.intermediate_size == 1408 &&
                c.moe.shared_intermediate_size == 5632 && !c.moe.normalize_weights && c.moe.IsSparseThroughout() &&
                c.rope_theta == 1e4 && c.qkv_bias && !c.output_bias;
       }},
      {"Qwen2: without biases", With(kQwen2, R"({"qkv_bias": false})"),
       [](const ModelConfig& c) { return !c.qkv_bias; }},
      {"Qwen2: window unused", With(kQwen2, R"({"sliding_window": 16})"), window({0, 0, 0, 0})},
      {"Qwen2: window in every other layer", With(kQwen2, R"({"sliding_window": 16, "use_sliding_window": true})"),
       window({16, 0, 16, 0})},
      {"Qwen2: window in early layers",
       With(kQwen2, R"({"sliding_window": 16, "use_sliding_window": true, "max_window_layers": 2})"),
       window({16, 0, 0, 0})},
      {"Qwen3: defaults", kQwen3,
       [](const ModelConfig& c) {
         return c.moe.num_experts == 128 && c.moe.num_experts_per_token == 8 && c.moe.intermediate_size == 768 &&
                c.moe.shared_intermediate_size == 0 && !c.moe.normalize_weights && c.qk_norm && c.head_dim == 8;
       }},
      {"Qwen3: num_local_experts", With(kQwen3, R"({"num_local_experts": 12})"),
       [](const ModelConfig& c) { return c.moe.num_experts == 12; }},
      {"Qwen3: both, alike", With(kQwen3, R"({"num_local_experts": 12, "num_experts": 12})"),
       [](const ModelConfig& c) { return c.moe.num_experts == 12; }},
      {"Qwen3: window", With(kQwen3, R"({"use_sliding_window": true, "max_window_layers": 4})"),
       window({4096, 4096, 4096, 4096})},
      {"Qwen3: dense layers twice over", With(kQwen3, R"({"mlp_only_layers": [2, 2]})"),
       [](const ModelConfig& c) {
         return c.moe.sparse == std::vector<bool>{true, true, false, true};
       }},
      {"Qwen3: no dense layers", With(kQwen3, R"({"mlp_only_layers": null})"),
       [](const ModelConfig& c) { return c.moe.IsSparseThroughout(); }},
      {"Qwen3: a step beyond the last layer", With(kQwen3, R"({"decoder_sparse_step": 5})"),
       [](const ModelConfig& c) { return c.moe.sparse == std::vector<bool>(4, false); }},
  };
  for (const Case& test : cases) {
    const absl::StatusOr<ModelConfig> config = Load(test.config.dump());
    ASSERT_TRUE(config.ok()) << test.what << ": " << config.status();
    EXPECT_TRUE(test.holds(*config)) << test.what;
  }
}

TEST(MoeConfigTest, NoMutationIsAcceptedOutOfBounds) {
  const std::string original = With(kQwen2, R"({"num_experts": 16, "num_experts_per_tok": 3, "mlp_only_layers": [1, 2],
      "moe_intermediate_size": 40, "shared_expert_intermediate_size": 50, "decoder_sparse_step": 1})")
                                   .dump();
  std::mt19937_64 random(7);
  int accepted = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string text = original;
    const size_t digit = text.find_first_of("0123456789", random() % text.size());
    if (digit == std::string::npos) continue;
    const uint64_t kind = random() % 3;
    if (kind == 0) text[digit] = static_cast<char>('0' + random() % 10);
    if (kind == 1) text.insert(digit, random() % 2 == 0 ? "-" : "9");
    if (kind == 2) text.erase(digit, 1);
    const absl::StatusOr<ModelConfig> config = Load(text);
    if (!config.ok()) {
      EXPECT_FALSE(ErrorCode(config.status().message()).empty()) << text;
      continue;
    }
    ++accepted;
    EXPECT_GE(config->moe.num_experts_per_token, 1) << text;
    EXPECT_LE(config->moe.num_experts_per_token, config->moe.num_experts) << text;
    EXPECT_LE(config->moe.num_experts, 4096) << text;
    EXPECT_GE(config->moe.intermediate_size, 1) << text;
    EXPECT_GE(config->moe.shared_intermediate_size, 1) << text;
    EXPECT_EQ(config->moe.sparse.size(), static_cast<size_t>(config->num_layers)) << text;
  }
  EXPECT_GT(accepted, 100) << "the mutations must reach past the first check";
}

}  // namespace
}  // namespace weft
