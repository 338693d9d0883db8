#include "engine/weights.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/dummy_tensors.h"
#include "engine/tensor_list.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/device.h"
#include "kernels/half.h"
#include "tests/engine/stored_weights.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

std::unique_ptr<Backend> OpenCpu() {
  absl::StatusOr<std::unique_ptr<Backend>> backend = OpenDevice({DeviceKind::kCpu, 1});
  EXPECT_TRUE(backend.ok()) << backend.status();
  return backend.ok() ? *std::move(backend) : nullptr;
}

std::vector<float> Bias(Backend& backend, const Weight& weight) {
  if (weight.bias.empty()) return {};
  std::vector<float> bias(static_cast<size_t>(weight.out_features));
  backend.CopyToHost(bias.data(), weight.bias.data(), bias.size() * sizeof(float));
  EXPECT_TRUE(backend.Synchronize().ok());
  return bias;
}

std::vector<float> Floats(Backend& backend, const Buffer& buffer) {
  std::vector<float> values(buffer.bytes() / sizeof(float));
  backend.CopyToHost(values.data(), buffer.data(), buffer.bytes());
  EXPECT_TRUE(backend.Synchronize().ok());
  return values;
}

class FixtureWeightsTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FixtureWeightsTest, HoldWhatTheFileHolds) {
  const std::string dir = FixtureModel(GetParam());
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(dir);
  ASSERT_TRUE(config.ok()) << config.status();
  const std::unique_ptr<Backend> backend = OpenCpu();
  WeightOptions options;
  options.dtype = DType::kF32;
  const absl::StatusOr<ModelWeights> weights = LoadWeights(dir, *config, WholeModel(*config), options, *backend);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const absl::StatusOr<Checkpoint> file = Checkpoint::Open(dir);
  ASSERT_TRUE(file.ok()) << file.status();

  EXPECT_EQ(Unpack(*backend, *weights->embedding), Stored(*file, {"model.embed_tokens.weight"}));
  EXPECT_EQ(Floats(*backend, weights->final_norm), Stored(*file, {"model.norm.weight"}));
  EXPECT_EQ(weights->head.has_value(), !config->tie_word_embeddings);
  if (weights->head.has_value()) {
    EXPECT_EQ(Unpack(*backend, *weights->head), Stored(*file, {"lm_head.weight"}));
  }
  ASSERT_EQ(weights->layers.size(), static_cast<size_t>(config->num_layers));
  for (int i = 0; i < config->num_layers; ++i) {
    const LayerWeights& layer = weights->layers[static_cast<size_t>(i)];
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    const std::string attention = prefix + "self_attn.";
    const std::string mlp = prefix + "mlp.";
    EXPECT_EQ(Floats(*backend, layer.input_norm), Stored(*file, {prefix + "input_layernorm.weight"}));
    EXPECT_EQ(Floats(*backend, layer.post_norm), Stored(*file, {prefix + "post_attention_layernorm.weight"}));
    EXPECT_EQ(Floats(*backend, layer.q_norm),
              Stored(*file, config->qk_norm ? std::vector<std::string>{attention + "q_norm.weight"}
                                            : std::vector<std::string>{}));
    const auto expect_linear = [&](const Weight& weight, const std::vector<std::string>& modules, bool with_bias) {
      std::vector<std::string> matrices, biases;
      for (const std::string& module : modules) {
        matrices.push_back(module + ".weight");
        if (with_bias) biases.push_back(module + ".bias");
      }
      EXPECT_THAT(Unpack(*backend, weight), ::testing::Pointwise(::testing::FloatNear(2e-7f), Stored(*file, matrices)));
      EXPECT_EQ(Bias(*backend, weight), Stored(*file, biases)) << modules[0];
    };
    expect_linear(layer.qkv, {attention + "q_proj", attention + "k_proj", attention + "v_proj"}, config->qkv_bias);
    expect_linear(layer.output, {attention + "o_proj"}, config->output_bias);
    expect_linear(layer.gate_up, {mlp + "gate_proj", mlp + "up_proj"}, config->mlp_bias);
    expect_linear(layer.down, {mlp + "down_proj"}, config->mlp_bias);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, FixtureWeightsTest,
                         ::testing::Values("llama2", "llama3", "llama_bias", "mistral", "qwen2", "qwen3"),
                         [](const auto& test) { return std::string(test.param); });

// A Llama of one layer, small enough to be written tensor by tensor.
ModelConfig SmallConfig() {
  ModelConfig config;
  config.model_type = "llama";
  config.architecture = "LlamaForCausalLM";
  config.vocab_size = 8;
  config.hidden_size = 4;
  config.intermediate_size = 6;
  config.num_layers = 1;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 2;
  config.dtype = DType::kBF16;
  return config;
}

// Its tensors, all 0.5 in BF16.
std::vector<TestTensor> SmallTensors() {
  std::vector<TestTensor> tensors;
  const ModelSpec spec = ListTensors(SmallConfig(), WholeModel(SmallConfig()));
  for (const TensorSpec* tensor : AllTensors(spec)) {
    TestTensor made{tensor->name, "BF16", {tensor->rows}, ""};
    int64_t count = tensor->rows;
    if (tensor->role == TensorSpec::Role::kMatrix) {
      made.shape.push_back(tensor->cols);
      count *= tensor->cols;
    }
    for (int64_t i = 0; i < count; ++i) made.data += std::string("\x00\x3f", 2);
    tensors.push_back(made);
  }
  return tensors;
}

absl::Status LoadSmall(const std::vector<TestTensor>& tensors, const ModelConfig& config) {
  const TempDir dir;
  dir.Write("model.safetensors", SafetensorsFile(tensors));
  const std::unique_ptr<Backend> backend = OpenCpu();
  return LoadWeights(dir.path(), config, WholeModel(config), {}, *backend).status();
}

TestTensor& Named(std::vector<TestTensor>& tensors, const std::string& name) {
  return *std::find_if(tensors.begin(), tensors.end(), [&](const TestTensor& t) { return t.name == name; });
}

TEST(LoadWeightsTest, M16AndM19NameTheTensorAndTheFault) {
  struct Case {
    const char* what;
    std::function<void(std::vector<TestTensor>&)> spoil;
    const char* code;
    const char* tensor;
  };
  constexpr char kUp[] = "model.layers.0.mlp.up_proj.weight";
  constexpr char kNorm[] = "model.norm.weight";
  const auto extra = [](const char* name) {
    return [name](std::vector<TestTensor>& t) { t.push_back({name, "BF16", {1}, "xx"}); };
  };
  const std::vector<Case> cases = {
      {"missing", [&](auto& t) { Named(t, kUp).name = "up"; }, "missing_tensor", kUp},
      {"missing head", [](auto& t) { t.pop_back(); }, "missing_tensor", "lm_head.weight"},
      {"extra", extra("model.layers.1.mlp.up_proj.weight"), "extra_tensor", "model.layers.1.mlp.up_proj.weight"},
      {"extra bias", extra("model.layers.0.self_attn.q_proj.bias"), "extra_tensor", "q_proj.bias"},
      {"extra with a line break in its name", extra("a\\nb"), "extra_tensor", "a\\nb"},
      {"transposed",
       [&](auto& t) {
         Named(t, kUp).shape = {4, 6};
       },
       "wrong_shape", kUp},
      {"of another rank",
       [&](auto& t) {
         Named(t, kNorm).shape = {4, 1};
       },
       "wrong_shape", kNorm},
      {"F16 where BF16 is due", [&](auto& t) { Named(t, kUp).dtype = "F16"; }, "wrong_dtype", kUp},
      {"integers", [&](auto& t) { Named(t, kUp).dtype = "I16"; }, "wrong_dtype", kUp},
      {"norm of integers", [&](auto& t) { Named(t, kNorm).dtype = "U16"; }, "wrong_dtype", kNorm},
      {"NaN", [&](auto& t) { Named(t, kUp).data.replace(46, 2, "\xc0\x7f"); }, "nonfinite_weights", kUp},
      {"infinity", [&](auto& t) { Named(t, kNorm).data.replace(6, 2, "\x80\xff"); }, "nonfinite_weights", kNorm},
  };
  ASSERT_TRUE(LoadSmall(SmallTensors(), SmallConfig()).ok());
  for (const Case& test : cases) {
    SCOPED_TRACE(test.what);
    std::vector<TestTensor> tensors = SmallTensors();
    test.spoil(tensors);
    const absl::Status status = LoadSmall(tensors, SmallConfig());
    EXPECT_EQ(ErrorCode(status.message()), test.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.tensor));
    EXPECT_EQ(status.message().find('\n'), absl::string_view::npos) << "an error is one line";
  }
}

TEST(LoadWeightsTest, PassesOverWhatWritersLeaveBehind) {
  std::vector<TestTensor> tensors = SmallTensors();
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1}, "xxxx"});
  EXPECT_TRUE(LoadSmall(tensors, SmallConfig()).ok());
  ModelConfig tied = SmallConfig();
  tied.tie_word_embeddings = true;
  EXPECT_TRUE(LoadSmall(tensors, tied).ok()) << "lm_head.weight of a tied model";
}

TEST(LoadWeightsTest, NormsMayBeOfAnotherFloatThanMatrices) {
  std::vector<TestTensor> tensors = SmallTensors();
  TestTensor& norm = Named(tensors, "model.norm.weight");
  norm.dtype = "F32";
  norm.data = std::string("\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40", 16);
  const TempDir dir;
  dir.Write("model.safetensors", SafetensorsFile(tensors));
  const std::unique_ptr<Backend> backend = OpenCpu();
  const absl::StatusOr<ModelWeights> weights =
      LoadWeights(dir.path(), SmallConfig(), WholeModel(SmallConfig()), {}, *backend);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(Floats(*backend, weights->final_norm), (std::vector<float>{1, 2, 3, 4}));
}

TEST(LoadWeightsTest, Int8IsWithinHalfAStepOfEachChannel) {
  const std::string dir = FixtureModel("llama3");
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(dir);
  ASSERT_TRUE(config.ok()) << config.status();
  const std::unique_ptr<Backend> backend = OpenCpu();
  WeightOptions options;
  options.dtype = DType::kI8;
  const absl::StatusOr<ModelWeights> weights = LoadWeights(dir, *config, WholeModel(*config), options, *backend);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->embedding->dtype, DType::kBF16) << "the embedding stays as stored";
  const absl::StatusOr<Checkpoint> file = Checkpoint::Open(dir);
  ASSERT_TRUE(file.ok()) << file.status();

  const Weight& down = weights->layers[1].down;
  EXPECT_EQ(down.dtype, DType::kI8);
  const std::vector<float> exact = Stored(*file, {"model.layers.1.mlp.down_proj.weight"});
  const std::vector<float> stored = Unpack(*backend, down);
  const auto in = static_cast<size_t>(down.in_features);
  ASSERT_EQ(stored.size(), exact.size());
  for (size_t row = 0; row < static_cast<size_t>(down.out_features); ++row) {
    float largest = 0;
    for (size_t i = 0; i < in; ++i) largest = std::max(largest, std::abs(exact[row * in + i]));
    const float half_step = largest / 127 / 2;
    for (size_t i = 0; i < in; ++i) {
      EXPECT_NEAR(stored[row * in + i], exact[row * in + i], half_step * 1.001f) << row << ", " << i;
    }
  }
}

TEST(LoadWeightsTest, DummyWeightsNeedNoFilesAndFollowTheSeed) {
  const std::unique_ptr<Backend> backend = OpenCpu();
  const auto load = [&](uint64_t seed) {
    WeightOptions options;
    options.format = LoadFormat::kDummy;
    options.dummy_seed = seed;
    absl::StatusOr<ModelWeights> weights =
        LoadWeights("/nowhere", SmallConfig(), WholeModel(SmallConfig()), options, *backend);
    EXPECT_TRUE(weights.ok()) << weights.status();
    return *std::move(weights);
  };
  const ModelWeights one = load(1);
  const ModelWeights again = load(1);
  const ModelWeights two = load(2);
  EXPECT_EQ(one.embedding->dtype, DType::kBF16);
  EXPECT_EQ(Unpack(*backend, one.layers[0].qkv), Unpack(*backend, again.layers[0].qkv));
  EXPECT_NE(Unpack(*backend, one.layers[0].qkv), Unpack(*backend, two.layers[0].qkv));
  EXPECT_THAT(Floats(*backend, one.final_norm), Each(1.0f));
  EXPECT_TRUE(one.head.has_value());
}

TEST(DummyTensorsTest, AreNormalAndDifferByName) {
  std::vector<uint16_t> values(100'000);
  FillDummyTensor(7, "a", 0, absl::MakeSpan(values));
  double sum = 0;
  double squares = 0;
  int beyond_two_sigma = 0;
  for (const uint16_t bits : values) {
    const double value = BF16ToF32(bits);
    sum += value;
    squares += value * value;
    beyond_two_sigma += std::abs(value) > 0.04 ? 1 : 0;
  }
  const auto count = static_cast<double>(values.size());
  EXPECT_NEAR(sum / count, 0, 3e-4);
  EXPECT_NEAR(std::sqrt(squares / count), 0.02, 3e-4);
  EXPECT_NEAR(beyond_two_sigma / count, 0.0455, 0.004);

  std::vector<uint16_t> other(values.size());
  FillDummyTensor(7, "b", 0, absl::MakeSpan(other));
  size_t equal = 0;
  for (size_t i = 0; i < values.size(); ++i) equal += values[i] == other[i] ? 1 : 0;
  EXPECT_LT(equal, values.size() / 50) << "two names share a stream";
}

TEST(DummyTensorsTest, APartIsThatOfTheWhole) {
  std::vector<uint16_t> whole(1000), part(37);
  FillDummyTensor(7, "a", 0, absl::MakeSpan(whole));
  for (const uint64_t first : {0, 1, 4, 5, 6, 123, 963}) {
    FillDummyTensor(7, "a", first, absl::MakeSpan(part));
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + static_cast<std::ptrdiff_t>(first))) << first;
  }
}

}  // namespace
}  // namespace weft
