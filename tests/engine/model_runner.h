// A model without scheduler or engine: sequences are stepped by hand, and their logits can be looked at.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/batch.h"
#include "engine/kv_cache.h"
#include "engine/model.h"
#include "engine/model_config.h"
#include "engine/step_input.h"
#include "engine/weights.h"
#include "kernels/device.h"

namespace weft {

class ModelRunner {
 public:
  static constexpr int kBlockSize = 16;
  static constexpr int kMaxSequences = 64;

  struct Options {
    DType weights = DType::kF32;
    int64_t max_model_len = 160;
    int num_threads = 2;
  };

  ModelRunner(const std::string& dir, const Options& options)
      : max_model_len_(options.max_model_len),
        config_(*LoadModelConfig(dir)),
        backend_(*OpenDevice({.num_threads = options.num_threads})),
        limits_{max_model_len_, NumBlocks() * kMaxSequences, kBlockSize, kMaxSequences, 8192, config_.vocab_size},
        model_(*Model::Create(config_, WholeModel(config_),
                              std::make_shared<const ModelWeights>(*LoadWeights(dir, config_, WholeModel(config_),
                                                                                {.dtype = options.weights}, *backend_)),
                              limits_, TensorParallel(WholeModel(config_), *backend_, nullptr), *backend_)),
        kv_cache_(
            *KvCache::Allocate(config_, WholeModel(config_), {limits_.num_blocks, kBlockSize, DType::kF32}, *backend_)),
        input_(*StepInput::Allocate(limits_, *backend_)),
        num_computed_(kMaxSequences, 0) {}

  // The next tokens of some sequences, and the logits after the last of each.
  struct Chunk {
    int sequence = 0;  // 0 .. kMaxSequences - 1
    std::vector<int32_t> tokens;
  };
  std::vector<std::vector<float>> Step(const std::vector<Chunk>& chunks) {
    Batch batch;
    for (const Chunk& chunk : chunks) AppendRow(chunk, batch);
    input_.Load(batch, *backend_);
    const Tensor hidden = model_.RunLayers(input_, model_.Embed(input_), kv_cache_);
    const Tensor logits = model_.Logits(input_, hidden);
    EXPECT_TRUE(backend_->Synchronize().ok());
    std::vector<std::vector<float>> rows;
    for (int64_t row = 0; row < logits.rows; ++row) {
      rows.emplace_back(logits.Row<float>(row), logits.Row<float>(row) + logits.cols);
    }
    return rows;
  }

  // Logits after the last token of one sequence that is computed from its start in chunks of `chunk` tokens.
  std::vector<float> LogitsInChunks(const std::vector<int32_t>& tokens, size_t chunk, int sequence = 0) {
    num_computed_[static_cast<size_t>(sequence)] = 0;
    std::vector<float> logits;
    for (size_t begin = 0; begin < tokens.size(); begin += chunk) {
      const size_t end = std::min(begin + chunk, tokens.size());
      logits = Step(
          {{sequence, {tokens.begin() + static_cast<int64_t>(begin), tokens.begin() + static_cast<int64_t>(end)}}})[0];
    }
    return logits;
  }

  void Restart(int sequence) { num_computed_[static_cast<size_t>(sequence)] = 0; }
  const ModelConfig& config() const { return config_; }

  // How many tokens each expert has got; of a model with experts.
  ExpertLoad expert_load() {
    ExpertLoad load;
    model_.moe()->CopyLoad(load);
    EXPECT_TRUE(backend_->Synchronize().ok());
    return load;
  }

 private:
  int NumBlocks() const { return static_cast<int>((max_model_len_ + kBlockSize - 1) / kBlockSize); }

  void AppendRow(const Chunk& chunk, Batch& batch) {
    int& position = num_computed_[static_cast<size_t>(chunk.sequence)];
    for (const int32_t token : chunk.tokens) {
      batch.token_ids.push_back(token);
      batch.positions.push_back(position++);
    }
    // Blocks of different sequences alternate, so that nothing relies on their being neighbours.
    for (int i = 0; i * kBlockSize < position; ++i) {
      batch.block_updates.push_back({chunk.sequence, i, i * kMaxSequences + chunk.sequence});
    }
    batch.row_begin.push_back(batch.num_tokens());
    batch.slots.push_back(chunk.sequence);
    batch.sampling.push_back({batch.num_rows() - 1, position, std::nullopt});
  }

  const int64_t max_model_len_;
  const ModelConfig config_;
  const std::unique_ptr<Backend> backend_;
  const EngineLimits limits_;
  Model model_;
  KvCache kv_cache_;
  StepInput input_;
  std::vector<int> num_computed_;
};

}  // namespace weft
