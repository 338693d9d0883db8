// Experts from files and from nowhere.
#include "engine/moe_weights.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/device.h"
#include "tests/engine/stored_weights.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

std::unique_ptr<Backend> OpenCpu() { return *OpenDevice({DeviceKind::kCpu, 1}); }

class FixtureExpertsTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FixtureExpertsTest, HoldWhatTheFileHolds) {
  const std::string dir = FixtureModel(GetParam());
  const ModelConfig config = *LoadModelConfig(dir);
  const std::unique_ptr<Backend> backend = OpenCpu();
  const absl::StatusOr<ModelWeights> weights =
      LoadWeights(dir, config, WholeModel(config), {.dtype = DType::kF32}, *backend);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const Checkpoint file = *Checkpoint::Open(dir);
  const auto expect = [&](const Weight& weight, const std::vector<std::string>& names) {
    EXPECT_THAT(Unpack(*backend, weight), Pointwise(FloatNear(2e-7f), Stored(file, names))) << names[0];
  };

  for (int i = 0; i < config.num_layers; ++i) {
    const LayerWeights& layer = weights->layers[static_cast<size_t>(i)];
    ASSERT_EQ(layer.moe.has_value(), config.moe.IsSparse(i));
    if (!layer.moe.has_value()) {
      expect(layer.down, {absl::StrCat("model.layers.", i, ".mlp.down_proj.weight")});
      continue;
    }
    EXPECT_EQ(layer.gate_up.out_features, 0) << "a sparse layer has no MLP";
    const bool mixtral = config.model_type == "mixtral";
    const std::string module = absl::StrCat("model.layers.", i, mixtral ? ".block_sparse_moe." : ".mlp.");
    const std::string gate = mixtral ? ".w1.weight" : ".gate_proj.weight";
    const std::string up = mixtral ? ".w3.weight" : ".up_proj.weight";
    const std::string down = mixtral ? ".w2.weight" : ".down_proj.weight";
    expect(layer.moe->router, {module + "gate.weight"});
    ASSERT_EQ(layer.moe->gate_up.experts.size(), static_cast<size_t>(config.moe.num_experts));
    ASSERT_EQ(layer.moe->down.experts.size(), static_cast<size_t>(config.moe.num_experts));
    for (size_t e = 0; e < layer.moe->down.experts.size(); ++e) {
      const std::string expert = absl::StrCat(module, "experts.", e);
      expect(layer.moe->gate_up.experts[e], {expert + gate, expert + up});
      expect(layer.moe->down.experts[e], {expert + down});
    }
    ASSERT_EQ(layer.moe->shared.has_value(), config.model_type == "qwen2_moe");
    if (!layer.moe->shared.has_value()) continue;
    expect(layer.moe->shared->gate, {module + "shared_expert_gate.weight"});
    expect(layer.moe->shared->gate_up, {module + "shared_expert" + gate, module + "shared_expert" + up});
    expect(layer.moe->shared->down, {module + "shared_expert" + down});
  }
}

INSTANTIATE_TEST_SUITE_P(Models, FixtureExpertsTest, ::testing::Values("mixtral", "qwen2_moe", "qwen3_moe"),
                         [](const auto& test) { return std::string(test.param); });

TEST(MoeWeightsTest, Int8LeavesWhatChoosesAsItIs) {
  const std::string dir = FixtureModel("qwen2_moe");
  const ModelConfig config = *LoadModelConfig(dir);
  const std::unique_ptr<Backend> backend = OpenCpu();
  const absl::StatusOr<ModelWeights> weights =
      LoadWeights(dir, config, WholeModel(config), {.dtype = DType::kI8}, *backend);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const MoeWeights& moe = *weights->layers[1].moe;
  EXPECT_EQ(moe.router.dtype, DType::kBF16);
  EXPECT_EQ(moe.shared->gate.dtype, DType::kBF16);
  EXPECT_EQ(moe.shared->down.dtype, DType::kI8);
  EXPECT_EQ(moe.gate_up.experts[0].dtype, DType::kI8);
  EXPECT_EQ(moe.down.experts[5].dtype, DType::kI8);
}

// One layer of three experts and a shared one, small enough to be written tensor by tensor.
ModelConfig SmallConfig() {
  ModelConfig config;
  config.model_type = "qwen2_moe";
  config.architecture = "Qwen2MoeForCausalLM";
  config.vocab_size = 8;
  config.hidden_size = 4;
  config.intermediate_size = 6;
  config.num_layers = 1;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 2;
  config.dtype = DType::kBF16;
  config.moe.num_experts = 3;
  config.moe.num_experts_per_token = 2;
  config.moe.intermediate_size = 5;
  config.moe.shared_intermediate_size = 7;
  config.moe.sparse = {true};
  config.moe.names = {"mlp", "gate_proj", "up_proj", "down_proj"};
  return config;
}

// Its tensors, all 0.5 in BF16.
std::vector<TestTensor> SmallTensors() {
  std::vector<TestTensor> tensors;
  const ModelSpec spec = ListTensors(SmallConfig(), WholeModel(SmallConfig()));
  for (const TensorSpec* tensor : AllTensors(spec)) {
    const bool matrix = tensor->role == TensorSpec::Role::kMatrix;
    TestTensor made{tensor->name, "BF16", {tensor->rows}, ""};
    if (matrix) made.shape.push_back(tensor->cols);
    for (int64_t i = 0; i < tensor->rows * (matrix ? tensor->cols : 1); ++i) made.data += std::string("\x00\x3f", 2);
    tensors.push_back(made);
  }
  return tensors;
}

TEST(MoeWeightsTest, ChecksEveryExpertOfAFile) {
  struct Case {
    const char* what;
    std::function<void(std::vector<TestTensor>&)> spoil;
    const char* code;
    const char* tensor;
  };
  const auto named = [](std::vector<TestTensor>& tensors, const std::string& name) -> TestTensor& {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const TestTensor& t) { return t.name == name; });
  };
  constexpr char kUp[] = "model.layers.0.mlp.experts.2.up_proj.weight";
  constexpr char kRouter[] = "model.layers.0.mlp.gate.weight";
  constexpr char kSharedGate[] = "model.layers.0.mlp.shared_expert_gate.weight";
  constexpr char kFourth[] = "model.layers.0.mlp.experts.3.up_proj.weight";
  constexpr char kDense[] = "model.layers.0.mlp.up_proj.weight";
  const auto extra = [](const char* name) {
    return [name](std::vector<TestTensor>& t) { t.push_back({name, "BF16", {1}, "xx"}); };
  };
  const std::vector<Case> cases = {
      {"an expert's matrix missing", [&](auto& t) { named(t, kUp).name = "up"; }, "missing_tensor", kUp},
      {"the router missing", [&](auto& t) { named(t, kRouter).name = "router"; }, "missing_tensor", kRouter},
      {"the shared gate missing", [&](auto& t) { named(t, kSharedGate).name = "g"; }, "missing_tensor", kSharedGate},
      {"an expert too many", extra(kFourth), "extra_tensor", kFourth},
      {"an MLP beside the experts", extra(kDense), "extra_tensor", kDense},
      {"an expert transposed",
       [&](auto& t) {
         named(t, kUp).shape = {4, 5};
       },
       "wrong_shape", kUp},
      {"an expert in F16", [&](auto& t) { named(t, kUp).dtype = "F16"; }, "wrong_dtype", kUp},
      {"NaN in the router", [&](auto& t) { named(t, kRouter).data.replace(6, 2, "\xc0\x7f"); }, "nonfinite_weights",
       kRouter},
  };
  const auto load = [](const std::vector<TestTensor>& tensors) {
    const TempDir dir;
    dir.Write("model.safetensors", SafetensorsFile(tensors));
    return LoadWeights(dir.path(), SmallConfig(), WholeModel(SmallConfig()), {}, *OpenCpu()).status();
  };
  ASSERT_TRUE(load(SmallTensors()).ok());
  for (const Case& test : cases) {
    SCOPED_TRACE(test.what);
    std::vector<TestTensor> tensors = SmallTensors();
    test.spoil(tensors);
    const absl::Status status = load(tensors);
    EXPECT_EQ(ErrorCode(status.message()), test.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.tensor));
  }
}

TEST(MoeWeightsTest, DummyExpertsDiffer) {
  const std::unique_ptr<Backend> backend = OpenCpu();
  const absl::StatusOr<ModelWeights> weights =
      LoadWeights("/nowhere", SmallConfig(), WholeModel(SmallConfig()), {.format = LoadFormat::kDummy}, *backend);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const std::vector<Weight>& experts = weights->layers[0].moe->down.experts;
  ASSERT_EQ(experts.size(), 3u);
  EXPECT_NE(Unpack(*backend, experts[0]), Unpack(*backend, experts[1]));
}

}  // namespace
}  // namespace weft
