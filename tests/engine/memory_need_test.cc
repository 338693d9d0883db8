#include "engine/memory_need.h"

#include <string>

#include "engine/weight_bytes.h"
#include "engine/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/device.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

int64_t Held(const Weight& weight) {
  return static_cast<int64_t>(weight.data.bytes() + weight.scale.bytes() + weight.bias.bytes());
}

int64_t Held(const ExpertWeights& weights) {
  int64_t bytes = 0;
  for (const Weight& expert : weights.experts) bytes += Held(expert);
  return bytes;
}

int64_t Held(const ModelWeights& weights) {
  int64_t bytes = static_cast<int64_t>(weights.final_norm.bytes());
  if (weights.embedding.has_value()) bytes += Held(*weights.embedding);
  if (weights.head.has_value()) bytes += Held(*weights.head);
  for (const LayerWeights& layer : weights.layers) {
    for (const Buffer* norm : {&layer.input_norm, &layer.post_norm, &layer.q_norm, &layer.k_norm}) {
      bytes += static_cast<int64_t>(norm->bytes());
    }
    for (const Weight* weight : {&layer.qkv, &layer.output, &layer.gate_up, &layer.down}) bytes += Held(*weight);
    if (!layer.moe.has_value()) continue;
    bytes += Held(layer.moe->router) + Held(layer.moe->gate_up) + Held(layer.moe->down);
    if (!layer.moe->shared.has_value()) continue;
    bytes += Held(layer.moe->shared->gate) + Held(layer.moe->shared->gate_up) + Held(layer.moe->shared->down);
  }
  return bytes;
}

// What the CPU's layout adds is at most 31 rows a linear, which for these small models is much.
TEST(WeightBytesTest, AreWhatLoadingAllocates) {
  for (const char* model : {"llama3", "qwen2", "qwen3", "mixtral", "qwen2_moe"}) {
    const ModelConfig config = *LoadModelConfig(FixtureModel(model));
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
      for (const ParallelSizes& sizes :
           {ParallelSizes{}, ParallelSizes{.tensor = config.num_heads % 2 == 0 ? 2 : 3, .pipeline = 2}}) {
        const auto backend = *OpenDevice({.num_threads = 1});
        WeightOptions options;
        options.dtype = dtype;
        options.format = LoadFormat::kDummy;
        const std::vector<ParallelPlan> plans = *MakePlans(config, sizes);
        for (const ParallelPlan& plan : plans) {
          const int64_t held = Held(*LoadWeights("", config, plan, options, *backend));
          const int64_t said = WeightBytes(config, plan, options);
          EXPECT_LE(said, held) << model;
          EXPECT_GE(said * 2, held) << model;
        }
      }
    }
  }
}

TEST(WeightBytesTest, AreExactWhereTheLayoutAddsNothing) {
  ModelConfig config;
  config.vocab_size = 320;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.dtype = DType::kBF16;
  const int64_t layer = 64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * 128;
  EXPECT_EQ(WeightBytes(config, WholeModel(config), {}), 2 * (3 * layer + 2 * 320 * 64) + 4 * 64 * 7);
  const auto backend = *OpenDevice({.num_threads = 1});
  const WeightOptions options{.format = LoadFormat::kDummy};
  EXPECT_EQ(WeightBytes(config, WholeModel(config), options),
            Held(*LoadWeights("", config, WholeModel(config), options, *backend)));
}

TEST(MemoryNeedTest, RefusesWithTheArithmetic) {
  const ModelConfig config = *LoadModelConfig(FixtureModel("llama3"));
  EngineSetup setup;
  setup.kv_cache_bytes = int64_t{6} << 30;
  const MemoryNeed one = MemoryNeedOf(config, setup, {WholeModel(config)});
  EXPECT_EQ(one.weights, WeightBytes(config, WholeModel(config), {}));
  EXPECT_EQ(one.kv_cache, setup.kv_cache_bytes);
  EXPECT_EQ(one.messages, 0);
  EXPECT_TRUE(CheckMemory(one, int64_t{7} << 30).ok());
  EXPECT_TRUE(CheckMemory(one, one.total()).ok());
  EXPECT_FALSE(CheckMemory(one, one.total() - 1).ok());

  const absl::Status status = CheckMemory({.kv_cache = int64_t{18} << 30}, int64_t{16} << 30);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* said : {"memory: ", "18.00 GiB of KV cache", "more than the 16.00 GiB", "kv-cache-memory"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(said));
  }
}

TEST(MemoryNeedTest, CountsWhatManyStagesSendEachOther) {
  ModelConfig config = *LoadModelConfig(FixtureModel("llama3"));
  config.num_layers = 64;
  config.hidden_size = 4096;
  config.moe.sparse.assign(64, false);
  EngineSetup setup;
  setup.parallel.pipeline = 64;
  const MemoryNeed need = MemoryNeedOf(config, setup, *MakePlans(config, setup.parallel));
  EXPECT_EQ(need.messages, int64_t{64} * (2 * (256 << 10) + int64_t{256} * (256 << 10)));
  const absl::Status status = CheckMemory({.messages = need.messages}, int64_t{1} << 30);
  EXPECT_THAT(std::string(status.message()), HasSubstr("pipeline-parallel-size"));
}

TEST(MemoryNeedTest, OfAHostIsThatOfItsRanks) {
  const ModelConfig config = *LoadModelConfig(FixtureModel("llama3"));
  EngineSetup setup;
  setup.kv_cache_bytes = int64_t{6} << 30;
  setup.parallel = {.tensor = 2, .pipeline = 2};
  const std::vector<ParallelPlan> plans = *MakePlans(config, setup.parallel);
  const MemoryNeed all = MemoryNeedOf(config, setup, plans);
  const MemoryNeed first = MemoryNeedOf(config, setup, {plans[0], plans[1]});
  const MemoryNeed second = MemoryNeedOf(config, setup, {plans[2], plans[3]});
  EXPECT_EQ(first.weights + second.weights, all.weights);
  EXPECT_EQ(first.weights, WeightBytes(config, plans[0], {}) + WeightBytes(config, plans[1], {}));
  EXPECT_EQ(second.kv_cache, setup.kv_cache_bytes / 2);
  EXPECT_EQ(second.messages, all.messages / 2);
  EXPECT_GT(all.messages, 0);
}

}  // namespace
}  // namespace weft
