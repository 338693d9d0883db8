// Experts of a part of a layer, and what is counted of them.
#include "engine/moe_mlp.h"

#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "engine/tensor_source.h"
#include "gtest/gtest.h"
#include "kernels/device.h"
#include "tests/engine/model_runner.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

constexpr int64_t kTokens = 20;

ModelConfig SmallConfig() {
  ModelConfig config;
  config.vocab_size = 8;
  config.hidden_size = 32;
  config.intermediate_size = 6;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 1;
  config.head_dim = 2;
  config.moe.num_experts = 5;
  config.moe.num_experts_per_token = 2;
  config.moe.intermediate_size = 24;
  config.moe.normalize_weights = true;
  config.moe.sparse = {false, true, true};
  config.moe.names = {"mlp", "gate_proj", "up_proj", "down_proj"};
  return config;
}

// Layer 1 of the small model, as one rank has it.
class Rank {
 public:
  explicit Rank(const ParallelPlan& plan)
      : config_(SmallConfig()),
        backend_(*OpenDevice({.num_threads = 2})),
        mlp_(*MoeMlp::Create(config_, plan, kTokens, *backend_)) {
    const std::unique_ptr<TensorSource> source = DummyTensors(7);
    const auto load = [&](const LinearSpec& linear, DType dtype) -> absl::StatusOr<Weight> {
      std::vector<HostTensor> tensors;
      std::vector<HostMatrix> parts;
      for (const TensorSpec& part : linear.parts) {
        tensors.push_back(*ReadTensor(*source, part));
        parts.push_back({tensors.back().data.get(), tensors.back().dtype, part.row_part.count, part.col_part.count});
      }
      return backend_->MakeWeight(parts, {}, dtype);
    };
    weights_ = *LoadMoeWeights(*ListTensors(config_, plan).layers[1].moe, {}, load, *backend_);
  }

  std::vector<float> Run(std::vector<float> x) {
    std::vector<float> out(x.size());
    const auto rows = static_cast<int64_t>(x.size()) / config_.hidden_size;
    mlp_.Run(1, weights_, DenseTensor(x.data(), DType::kF32, rows, config_.hidden_size),
             DenseTensor(out.data(), DType::kF32, rows, config_.hidden_size));
    return out;
  }

  ExpertLoad load() {
    ExpertLoad load;
    mlp_.CopyLoad(load);
    EXPECT_TRUE(backend_->Synchronize().ok());
    return load;
  }

 private:
  const ModelConfig config_;
  const std::unique_ptr<Backend> backend_;
  MoeMlp mlp_;
  MoeWeights weights_;
};

std::vector<float> Input() {
  std::vector<float> x(kTokens * 32);
  for (size_t i = 0; i < x.size(); ++i) x[i] = 10 * std::sin(static_cast<float>(i * i));
  return x;
}

TEST(MoeMlpTest, PartsOfALayerAddUpToIt) {
  Rank whole(WholeModel(SmallConfig()));
  const std::vector<float> expected = whole.Run(Input());
  const std::vector<int64_t> counts = whole.load().num_tokens;
  double largest = 0;
  for (const float value : expected) largest = std::max(largest, std::fabs(static_cast<double>(value)));
  ASSERT_GT(largest, 0.01);
  for (const auto& [tensor, expert] : {std::pair{2, 2}, {2, 1}, {4, 2}, {4, 4}}) {
    std::vector<float> sum(expected.size(), 0);
    const auto plans = *MakePlans(SmallConfig(), {.tensor = tensor, .expert = expert});
    for (const ParallelPlan& plan : plans) {
      Rank rank(plan);
      const std::vector<float> part = rank.Run(Input());
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
      const ExpertLoad load = rank.load();
      for (int i = 0; i < 3 * load.here.count; ++i) {
        const int expert_id = load.here.first + i % load.here.count;
        const auto all = static_cast<size_t>(i / load.here.count * 5 + expert_id);
        EXPECT_EQ(load.num_tokens[static_cast<size_t>(i)], counts[all]);
      }
    }
    for (size_t i = 0; i < sum.size(); ++i) EXPECT_NEAR(sum[i], expected[i], 1e-6 * largest) << tensor << " " << expert;
  }
}

TEST(MoeMlpTest, CountsTokensOfItsLayer) {
  Rank rank(WholeModel(SmallConfig()));
  rank.Run(Input());
  const ExpertLoad once = rank.load();
  EXPECT_EQ(once.num_layers, 3);
  EXPECT_EQ(once.here.first, 0);
  EXPECT_EQ(once.here.count, 5);
  ASSERT_EQ(once.num_tokens.size(), 15u);
  const auto sum = [&](int layer) {
    const auto begin = once.num_tokens.begin() + layer * 5;
    return std::accumulate(begin, begin + 5, int64_t{0});
  };
  EXPECT_EQ(sum(0), 0);
  EXPECT_EQ(sum(1), 2 * kTokens);
  EXPECT_EQ(sum(2), 0);
  rank.Run(Input());
  std::vector<int64_t> twice = once.num_tokens;
  for (int64_t& count : twice) count *= 2;
  EXPECT_EQ(rank.load().num_tokens, twice);
}

TEST(MoeMlpTest, AStepsLoadDoesNotDependOnHowItsPromptIsCut) {
  const std::vector<int32_t> prompt = {5, 17, 200, 3, 90, 91, 92, 5, 17, 44, 8};
  ModelRunner whole(FixtureModel("qwen3_moe"), {});
  ModelRunner cut(FixtureModel("qwen3_moe"), {});
  whole.LogitsInChunks(prompt, prompt.size());
  cut.LogitsInChunks(prompt, 3);
  const ExpertLoad load = whole.expert_load();
  EXPECT_EQ(load.num_tokens, cut.expert_load().num_tokens);
  EXPECT_EQ(std::accumulate(load.num_tokens.begin(), load.num_tokens.end(), int64_t{0}),
            static_cast<int64_t>(prompt.size()) * 4 * 2)
      << "four experts in each of two sparse layers";
}

}  // namespace
}  // namespace weft
