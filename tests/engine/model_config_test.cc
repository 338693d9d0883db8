#include "engine/model_config.h"

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

const json kLlama = json::parse(R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1000, "hidden_size": 64,
  "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
  "rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "eos_token_id": 2, "torch_dtype": "bfloat16"})");

json Family(const std::string& model_type, const std::string& architecture) {
  json config = kLlama;
  config["model_type"] = model_type;
  config["architectures"] = {architecture};
  return config;
}

const json kMistral = Family("mistral", "MistralForCausalLM");
const json kQwen2 = Family("qwen2", "Qwen2ForCausalLM");
const json kQwen3 = Family("qwen3", "Qwen3ForCausalLM");

json With(json config, const json& changes) {
  config.update(changes);
  return config;
}

json Without(json config, const std::string& field) {
  config.erase(field);
  return config;
}

absl::StatusOr<ModelConfig> Load(const std::string& text) {
  const TempDir dir;
  dir.Write("config.json", text);
  return LoadModelConfig(dir.path());
}

ModelConfig LoadOk(const json& config) {
  absl::StatusOr<ModelConfig> loaded = Load(config.dump());
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return loaded.ok() ? *loaded : ModelConfig();
}

struct Case {
  const char* id;  // of the bad-input catalogue
  std::string config;
  const char* code;
  const char* field;  // that the message names
};

std::vector<Case> Catalogue() {
  const auto with = [](const char* changes) { return With(kLlama, json::parse(changes)).dump(); };
  const auto text = [](const std::string& field, const std::string& value) {  // what nlohmann wouldn't write
    return absl::StrCat("{\"", field, "\":", value, ",", Without(kLlama, field).dump().substr(1));
  };
  const json many = std::vector<int>(1'000'000, 2);
  return {
      {"not JSON", "{", "invalid_json", ""},
      {"not an object", "[]", "invalid_json", ""},
      {"field twice", text("hidden_size", "64,\"hidden_size\":64"), "invalid_json", "hidden_size"},
      {"deep", text("x", std::string(1000, '[') + std::string(1000, ']')), "invalid_json", ""},
      {"NUL", kLlama.dump() + std::string(1, '\0'), "invalid_json", ""},
      {"large", kLlama.dump() + std::string(2 << 20, ' '), "too_large", ""},
      {"K01 model_type", with(R"({"model_type": "gpt2"})"), "unsupported_model", "model_type"},
      {"K01 architecture", with(R"({"architectures": ["LlamaForSequenceClassification"]})"), "unsupported_model",
       "architectures"},
      {"K01 architecture of another family", with(R"({"architectures": ["Qwen2ForCausalLM"]})"), "unsupported_model",
       "architectures"},
      {"K01 activation", with(R"({"hidden_act": "gelu"})"), "unsupported_model", "hidden_act"},
      {"K01 model_type absent", Without(kLlama, "model_type").dump(), "missing_field", "model_type"},
      {"K01 hidden_size absent", Without(kLlama, "hidden_size").dump(), "missing_field", "hidden_size"},
      {"K01 vocab_size null", with(R"({"vocab_size": null})"), "missing_field", "vocab_size"},
      {"K01 string", with(R"({"hidden_size": "64"})"), "missing_field", "hidden_size"},
      {"K01 float", with(R"({"hidden_size": 64.0})"), "missing_field", "hidden_size"},
      {"K01 bool", with(R"({"tie_word_embeddings": 1})"), "missing_field", "tie_word_embeddings"},
      {"K01 kv heads absent", Without(kMistral, "num_key_value_heads").dump(), "missing_field", "num_key_value_heads"},
      {"K02 hidden 0", with(R"({"hidden_size": 0})"), "out_of_range", "hidden_size"},
      {"K02 hidden negative", with(R"({"hidden_size": -64})"), "out_of_range", "hidden_size"},
      {"K02 hidden 2^40", with(R"({"hidden_size": 1099511627776})"), "out_of_range", "hidden_size"},
      {"K02 hidden 2^64-1", with(R"({"hidden_size": 18446744073709551615})"), "out_of_range", "hidden_size"},
      {"K02 layers 1e9", with(R"({"num_hidden_layers": 1000000000})"), "out_of_range", "num_hidden_layers"},
      {"K02 vocab 0", with(R"({"vocab_size": 0})"), "out_of_range", "vocab_size"},
      {"K02 dtype", with(R"({"torch_dtype": "float64"})"), "out_of_range", "torch_dtype"},
      {"K03 hidden % heads", with(R"({"num_attention_heads": 6, "num_key_value_heads": 6})"), "inconsistent",
       "hidden_size"},
      {"K03 heads % kv heads", with(R"({"num_key_value_heads": 3})"), "inconsistent", "num_key_value_heads"},
      {"K03 head_dim odd", with(R"({"head_dim": 9})"), "inconsistent", "head_dim"},
      {"K04 theta 0", with(R"({"rope_theta": 0})"), "unsupported_rope", "rope_theta"},
      {"K04 theta negative", with(R"({"rope_theta": -10000.0})"), "unsupported_rope", "rope_theta"},
      {"K04 theta NaN", text("rope_theta", "NaN"), "invalid_json", ""},
      {"K04 theta infinite", text("rope_theta", "1e999"), "invalid_json", ""},
      {"K04 theta string", with(R"({"rope_theta": "1e4"})"), "unsupported_rope", "rope_theta"},
      {"K04 type", with(R"({"rope_scaling": {"type": "longrope", "factor": 2}})"), "unsupported_rope", "longrope"},
      {"K04 factor 0", with(R"({"rope_scaling": {"type": "linear", "factor": 0}})"), "unsupported_rope",
       "rope_scaling.factor"},
      {"K04 factor absent", with(R"({"rope_scaling": {"type": "dynamic"}})"), "unsupported_rope",
       "rope_scaling.factor"},
      {"K04 llama3 order",
       with(R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}})"),
       "unsupported_rope", "high_freq_factor"},
      {"K04 yarn order", with(R"({"rope_scaling": {"type": "yarn", "factor": 8, "beta_fast": 1, "beta_slow": 2}})"),
       "unsupported_rope", "beta_fast"},
      {"K04 no object", with(R"({"rope_scaling": 2})"), "unsupported_rope", "rope_scaling"},
      {"K04 by layer", with(R"({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}})"), "unsupported_rope",
       "full_attention"},
      {"K04 partial", with(R"({"partial_rotary_factor": 0.5})"), "unsupported_rope", "partial_rotary_factor"},
      {"K04 dynamic head_dim", with(R"({"head_dim": 2, "rope_scaling": {"type": "dynamic", "factor": 2}})"),
       "unsupported_rope", "head_dim"},
      {"K05 eps 0", with(R"({"rms_norm_eps": 0})"), "out_of_range", "rms_norm_eps"},
      {"K05 eps NaN", text("rms_norm_eps", "NaN"), "invalid_json", ""},
      {"K05 eps 1e9", with(R"({"rms_norm_eps": 1e9})"), "out_of_range", "rms_norm_eps"},
      {"K06 eos beyond", with(R"({"eos_token_id": 1000})"), "out_of_range", "eos_token_id"},
      {"K06 eos negative", with(R"({"eos_token_id": -1})"), "out_of_range", "eos_token_id"},
      {"K06 eos in a list", with(R"({"eos_token_id": [2, 1000]})"), "out_of_range", "eos_token_id"},
      {"K06 eos string", with(R"({"eos_token_id": "</s>"})"), "missing_field", "eos_token_id"},
      {"K06 too many to read", With(kLlama, {{"eos_token_id", many}}).dump(), "too_large", ""},
      {"K06 too many", With(kLlama, {{"eos_token_id", std::vector<int>(1000, 2)}}).dump(), "out_of_range",
       "eos_token_id"},
      {"K06 bos beyond", with(R"({"bos_token_id": 4294967297})"), "out_of_range", "bos_token_id"},
      {"K07 quantised", with(R"({"quantization_config": {"quant_method": "gptq"}})"), "unsupported_quantization",
       "quantization_config"},
      {"K09 positions 1e12", with(R"({"max_position_embeddings": 1000000000000})"), "out_of_range",
       "max_position_embeddings"},
      {"window 0", With(kMistral, {{"sliding_window", 0}}).dump(), "out_of_range", "sliding_window"},
      {"layer types too few", With(kQwen2, {{"layer_types", {"full_attention"}}}).dump(), "inconsistent",
       "layer_types"},
      {"layer types unknown", With(kQwen2, {{"layer_types", std::vector<std::string>(4, "linear_attention")}}).dump(),
       "unsupported_model", "layer_types"},
      {"layer types without a window",
       With(kQwen2, {{"layer_types", std::vector<std::string>(4, "sliding_attention")}}).dump(), "inconsistent",
       "layer_types"},
  };
}

TEST(ModelConfigTest, AnswersTheCatalogue) {
  for (const Case& test : Catalogue()) {
    SCOPED_TRACE(test.id);
    const absl::StatusOr<ModelConfig> config = Load(test.config);
    ASSERT_FALSE(config.ok());
    const std::string message(config.status().message());
    EXPECT_EQ(ErrorCode(message), test.code) << message;
    EXPECT_THAT(message, HasSubstr("/config.json: "));
    EXPECT_THAT(message, HasSubstr(test.field));
    EXPECT_EQ(message.find('\n'), std::string::npos) << "an error is one line";
    EXPECT_LT(message.size(), 500u);
  }
}

TEST(ModelConfigTest, IsNotFoundWithoutAFile) {
  const TempDir dir;
  EXPECT_TRUE(absl::IsNotFound(LoadModelConfig(dir.path()).status()));
  EXPECT_TRUE(absl::IsNotFound(LoadModelConfig(dir.File("no_such_directory")).status()));
}

TEST(ModelConfigTest, ReadsAllOfALlama) {
  const ModelConfig config = LoadOk(kLlama);
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.vocab_size, 1000);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.intermediate_size, 128);
  EXPECT_EQ(config.num_layers, 4);
  EXPECT_EQ(config.num_heads, 8);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-5f);
  EXPECT_EQ(config.max_position_embeddings, 2048);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::kNone);
  EXPECT_FALSE(config.qkv_bias || config.output_bias || config.mlp_bias || config.qk_norm);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_THAT(config.sliding_window, ElementsAre(0, 0, 0, 0));
  EXPECT_EQ(config.dtype, DType::kBF16);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config.bos_token_id, std::nullopt);
  EXPECT_TRUE(config.warnings.empty());
}

TEST(ModelConfigTest, FamiliesDifferByFields) {
  struct FieldCase {
    const char* what;
    json config;
    std::function<bool(const ModelConfig&)> holds;
  };
  const std::vector<FieldCase> cases = {
      {"Llama: key-value heads default to heads", Without(kLlama, "num_key_value_heads"),
       [](const ModelConfig& c) { return c.num_kv_heads == 8; }},
      {"Llama: attention_bias", With(kLlama, {{"attention_bias", true}}),
       [](const ModelConfig& c) { return c.qkv_bias && c.output_bias && !c.mlp_bias; }},
      {"Llama: mlp_bias", With(kLlama, {{"mlp_bias", true}}),
       [](const ModelConfig& c) { return c.mlp_bias && !c.qkv_bias; }},
      {"Llama: explicit head_dim", With(kLlama, {{"head_dim", 10}, {"num_attention_heads", 6}}),
       [](const ModelConfig& c) { return c.head_dim == 10; }},
      {"Llama: no architectures", Without(kLlama, "architectures"),
       [](const ModelConfig& c) { return c.architecture == "LlamaForCausalLM"; }},
      {"Llama: tied", With(kLlama, {{"tie_word_embeddings", true}}),
       [](const ModelConfig& c) { return c.tie_word_embeddings; }},
      {"dtype of transformers 5", With(Without(kLlama, "torch_dtype"), {{"dtype", "float16"}}),
       [](const ModelConfig& c) { return c.dtype == DType::kF16; }},
      {"dtype left out", Without(kLlama, "torch_dtype"), [](const ModelConfig& c) { return c.dtype == DType::kF32; }},
      {"several eos ids", With(kLlama, {{"eos_token_id", {7, 9}}}),
       [](const ModelConfig& c) {
         return c.eos_token_ids == std::vector<int32_t>{7, 9};
       }},
      {"Mistral: no window", With(kMistral, {{"sliding_window", nullptr}}),
       [](const ModelConfig& c) { return c.sliding_window == std::vector<int64_t>(4, 0); }},
      {"Mistral: window", With(kMistral, {{"sliding_window", 16}}),
       [](const ModelConfig& c) { return c.sliding_window == std::vector<int64_t>(4, 16); }},
      {"Mistral: window left out", kMistral,
       [](const ModelConfig& c) { return c.sliding_window == std::vector<int64_t>(4, 4096); }},
      {"Qwen2: biases", kQwen2, [](const ModelConfig& c) { return c.qkv_bias && !c.output_bias && !c.qk_norm; }},
      {"Qwen2: window unused", With(kQwen2, {{"sliding_window", 16}, {"use_sliding_window", false}}),
       [](const ModelConfig& c) { return c.sliding_window == std::vector<int64_t>(4, 0); }},
      {"Qwen2: window from a layer on",
       With(kQwen2, {{"sliding_window", 16}, {"use_sliding_window", true}, {"max_window_layers", 3}}),
       [](const ModelConfig& c) {
         return c.sliding_window == std::vector<int64_t>{0, 0, 0, 16};
       }},
      {"Qwen2: window layer by layer",
       With(kQwen2, {{"sliding_window", 16},
                     {"use_sliding_window", true},
                     {"layer_types", {"sliding_attention", "full_attention", "sliding_attention", "full_attention"}}}),
       [](const ModelConfig& c) {
         return c.sliding_window == std::vector<int64_t>{16, 0, 16, 0};
       }},
      {"Qwen3: norms, head_dim of its own", kQwen3,
       [](const ModelConfig& c) { return c.qk_norm && c.head_dim == 128 && !c.qkv_bias && !c.output_bias; }},
      {"Qwen3: attention_bias", With(kQwen3, {{"attention_bias", true}}),
       [](const ModelConfig& c) { return c.qkv_bias && c.output_bias; }},
  };
  for (const FieldCase& test : cases) EXPECT_TRUE(test.holds(LoadOk(test.config))) << test.what;
}

TEST(ModelConfigTest, ReadsEverySpellingOfRope) {
  using Kind = RopeScaling::Kind;
  struct RopeCase {
    const char* changes;
    std::function<bool(double, const RopeScaling&)> holds;  // of theta and scaling
  };
  const std::vector<RopeCase> cases = {
      {R"({"rope_theta": 500000})",
       [](double theta, const RopeScaling& s) { return theta == 5e5 && s.kind == Kind::kNone; }},
      {R"({"rope_scaling": {"rope_type": "default"}})",
       [](double, const RopeScaling& s) { return s.kind == Kind::kNone; }},
      {R"({"rope_scaling": null, "rope_parameters": {"rope_type": "default", "rope_theta": 77.0}})",
       [](double theta, const RopeScaling& s) { return theta == 77 && s.kind == Kind::kNone; }},
      {R"({"rope_scaling": {"type": "linear", "factor": 2}})",
       [](double theta, const RopeScaling& s) { return theta == 1e4 && s.kind == Kind::kLinear && s.factor == 2; }},
      {R"({"rope_scaling": {"type": "dynamic", "factor": 2, "original_max_position_embeddings": 5}})",
       [](double, const RopeScaling& s) {
         return s.kind == Kind::kDynamic && s.original_max_position_embeddings == 2048;
       }},
      {R"({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
           "high_freq_factor": 4.0, "original_max_position_embeddings": 512}})",
       [](double theta, const RopeScaling& s) {
         return theta == 5e5 && s.kind == Kind::kLlama3 && s.factor == 8 && s.low_freq_factor == 1 &&
                s.high_freq_factor == 4 && s.original_max_position_embeddings == 512;
       }},
      {R"({"rope_scaling": {"type": "yarn", "factor": 4.0}})",
       [](double, const RopeScaling& s) {
         return s.kind == Kind::kYarn && s.original_max_position_embeddings == 2048 && s.beta_fast == 32 &&
                s.beta_slow == 1 && s.truncate && !s.attention_factor.has_value();
       }},
      {R"({"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 512, "attention_factor": 1.5,
           "mscale": 0.7, "mscale_all_dim": 0.8, "beta_fast": 16, "beta_slow": 2, "truncate": false}})",
       [](double, const RopeScaling& s) {
         return s.factor == 4 && s.attention_factor == 1.5 && s.mscale == 0.7 && s.mscale_all_dim == 0.8 &&
                s.beta_fast == 16 && s.beta_slow == 2 && !s.truncate;
       }},
      {R"({"original_max_position_embeddings": 256,
           "rope_scaling": {"type": "yarn", "factor": 8, "original_max_position_embeddings": 512}})",
       [](double, const RopeScaling& s) { return s.original_max_position_embeddings == 256; }},
  };
  for (const RopeCase& test : cases) {
    const ModelConfig config = LoadOk(With(kLlama, json::parse(test.changes)));
    EXPECT_TRUE(test.holds(config.rope_theta, config.rope_scaling)) << test.changes;
  }
}

// Whatever is accepted can be computed with: no number that a shape or a table is made of lies out of bounds.
void ExpectSound(const ModelConfig& config) {
  for (const int64_t size : {int64_t{config.vocab_size}, int64_t{config.hidden_size}, int64_t{config.intermediate_size},
                             int64_t{config.num_layers}, int64_t{config.num_heads}, int64_t{config.num_kv_heads},
                             int64_t{config.head_dim}, config.max_position_embeddings}) {
    EXPECT_GE(size, 1);
    EXPECT_LE(size, kMaxPositions);
  }
  EXPECT_EQ(config.num_heads % config.num_kv_heads, 0);
  EXPECT_EQ(config.head_dim % 2, 0);
  EXPECT_EQ(config.sliding_window.size(), static_cast<size_t>(config.num_layers));
  EXPECT_GT(config.rms_norm_eps, 0);
  EXPECT_GT(config.rope_theta, 1);
  EXPECT_GE(config.rope_scaling.factor, 1);
  for (const int32_t id : config.eos_token_ids) EXPECT_TRUE(id >= 0 && id < config.vocab_size);
}

TEST(ModelConfigTest, NoMutationIsAcceptedOutOfBounds) {
  static const std::vector<std::string> kPieces = {"-",   "0",  "999999999999", "null", "[",    "]", "{",
                                                   "}",   "\"", "1e300",        ".5",   "true", ",", "\"head_dim\":7,",
                                                   "\xff"};
  const std::string original =
      With(kLlama, json::parse(R"({"rope_scaling": {"type": "yarn", "factor": 8.0, "beta_fast": 32}})")).dump();
  std::mt19937_64 random(7);
  int accepted = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string text = original;
    for (uint64_t edits = 1 + random() % 2; edits > 0; --edits) {
      const size_t at = random() % text.size();
      const size_t digit = text.find_first_of("0123456789", at);
      const uint64_t kind = random() % 4;
      if (kind == 0) text.insert(at, kPieces[random() % kPieces.size()]);
      if (kind == 1) text.erase(at, 1 + random() % 3);
      if (kind == 2) text[at] = static_cast<char>(random());
      if (kind == 3 && digit != std::string::npos) text[digit] = static_cast<char>('0' + random() % 10);
    }
    const absl::StatusOr<ModelConfig> config = Load(text);
    if (!config.ok()) {
      EXPECT_FALSE(ErrorCode(config.status().message()).empty()) << text;
      continue;
    }
    ++accepted;
    ExpectSound(*config);
  }
  EXPECT_GT(accepted, 100) << "the mutations must reach past the first check";
}

TEST(ModelConfigTest, K08AutoMapIsIgnoredWithAWarning) {
  const ModelConfig config = LoadOk(With(kLlama, {{"auto_map", {{"AutoModel", "modeling_evil.Model"}}}}));
  ASSERT_EQ(config.warnings.size(), 1u);
  EXPECT_THAT(config.warnings[0], HasSubstr("auto_map"));
}

TEST(GenerationConfigTest, OverridesEosIds) {
  const TempDir dir;
  dir.Write("config.json", kLlama.dump());
  dir.Write("generation_config.json", R"({"eos_token_id": [3, 4]})");
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(dir.path());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->eos_token_ids, ElementsAre(3, 4));

  dir.Write("generation_config.json", R"({"eos_token_id": 1000})");
  const absl::Status refused = LoadModelConfig(dir.path()).status();
  EXPECT_EQ(ErrorCode(refused.message()), "out_of_range");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("generation_config.json"));
}

TEST(GenerationConfigTest, ReadsSamplingDefaults) {
  const TempDir dir;
  const absl::StatusOr<GenerationConfig> absent = LoadGenerationConfig(dir.path());
  ASSERT_TRUE(absent.ok());
  EXPECT_EQ(absent->temperature, std::nullopt);

  dir.Write("generation_config.json", R"({"do_sample": true, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0,
                                          "repetition_penalty": 1.05, "max_new_tokens": 99})");
  const absl::StatusOr<GenerationConfig> config = LoadGenerationConfig(dir.path());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->temperature, 0.6f);
  EXPECT_EQ(config->top_p, 0.95f);
  EXPECT_EQ(config->top_k, 20);
  EXPECT_EQ(config->min_p, 0.0f);
  EXPECT_EQ(config->repetition_penalty, 1.05f);
  EXPECT_EQ(config->max_new_tokens, 99);
}

TEST(GenerationConfigTest, RefusesWhatASamplerCannotUse) {
  const TempDir dir;
  for (const char* text : {R"({"temperature": -1})", R"({"top_p": 1.5})", R"({"top_k": -1})", R"({"min_p": 2})",
                           R"({"repetition_penalty": 0})", R"({"max_new_tokens": 0})"}) {
    dir.Write("generation_config.json", text);
    EXPECT_EQ(ErrorCode(LoadGenerationConfig(dir.path()).status().message()), "out_of_range") << text;
  }
}

}  // namespace
}  // namespace weft
