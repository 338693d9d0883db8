#include "engine/local_engine.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

// The tokens that follow a prompt, greedily.
std::vector<int32_t> Draw(Engine& engine, const std::vector<int32_t>& prompt, int count) {
  Batch batch;
  batch.slots = {0};
  batch.slot_starts.push_back({.slot = 0, .num_prompt_tokens = 1, .sampling = {.temperature = 0}, .tokens = {}});
  batch.block_updates = {{.slot = 0, .index = 0, .block = 3}, {.slot = 0, .index = 1, .block = 1}};
  std::vector<int32_t> drawn;
  std::vector<int32_t> next = prompt;
  int32_t position = 0;
  for (int i = 0; i < count; ++i) {
    batch.step = i;
    batch.token_ids = next;
    batch.positions.clear();
    for (size_t t = 0; t < next.size(); ++t) batch.positions.push_back(position++);
    batch.row_begin = {0, static_cast<int32_t>(next.size())};
    batch.sampling = {{.row = 0, .position = position}};
    engine.Submit(batch);
    const absl::StatusOr<StepResult> result = engine.Collect();
    EXPECT_TRUE(result.ok()) << result.status();
    drawn.push_back(result->tokens.at(0).token);
    next = {drawn.back()};
    batch.slot_starts.clear();
    batch.block_updates.clear();
  }
  return drawn;
}

TEST(LocalEngineTest, EnginesOfOneModelDrawAlikeAndOutliveEachOther) {
  const std::string dir = FixtureModel("llama3");
  const ModelConfig config = *LoadModelConfig(dir);
  EngineSetup options{.model_dir = dir, .max_model_len = 32, .max_num_seqs = 4, .max_num_batched_tokens = 16};
  options.kv_cache_bytes = *KvCacheBytes(config, options, 64);
  for (const DType dtype : {DType::kF32, DType::kI8}) {
    options.weights.dtype = dtype;
    options.kv_cache_bytes = *KvCacheBytes(config, options, 64);
    auto source = LocalEngines::Load(config, options, 3);
    ASSERT_TRUE(source.ok()) << source.status();
    std::vector<std::unique_ptr<Engine>> engines;
    for (int i = 0; i < 3; ++i) engines.push_back(*(*source)->Open(i));
    const std::vector<int32_t> first = Draw(*engines[0], {1, 2, 3, 4}, 12);
    engines[0].reset();
    EXPECT_EQ(Draw(*engines[1], {1, 2, 3, 4}, 12), first);
    EXPECT_EQ(Draw(*engines[2], {1, 2, 3, 4}, 12), first);
    EXPECT_EQ(engines[1]->limits().num_blocks, 4) << "each has its own";
    EXPECT_EQ(Draw(**(*source)->Open(0), {1, 2, 3, 4}, 12), first) << "opened again";
  }
}

TEST(LocalEngineTest, RefusesACacheThatHoldsNoSequence) {
  const std::string dir = FixtureModel("llama3");
  const ModelConfig config = *LoadModelConfig(dir);
  EngineSetup options{.model_dir = dir, .max_model_len = 32};
  options.kv_cache_bytes = *KvCacheBytes(config, options, 16);
  EXPECT_EQ(LocalEngines::Load(config, options, 2).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace weft
