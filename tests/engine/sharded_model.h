// A model on as many ranks as a plan has, without scheduler and sampler: its logits can be looked at.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine_setup.h"
#include "engine/rank_parts.h"
#include "engine/weights.h"
#include "kernels/device.h"

namespace weft {

// Room for one sequence of 64 tokens a step, all of which may be scored. Needs model_dir, weights and parallel.
inline EngineSetup SmallSetup(const ModelConfig& config, EngineSetup setup) {
  setup.device.num_threads = 1;
  setup.max_model_len = 96;
  setup.max_num_seqs = 4;
  setup.max_num_batched_tokens = 64;
  setup.kv_cache_bytes = *KvCacheBytes(config, setup, 4 * setup.max_model_len);
  return setup;
}

// Of all ranks, each with its weights on a device of its own.
inline std::vector<WorkerParts> MakeRanks(const ModelConfig& config, const EngineSetup& setup,
                                          std::vector<RankCommunicators> communicators) {
  const std::vector<ParallelPlan> plans = *MakePlans(config, setup.parallel);
  const EngineLimits limits = *LimitsFor(config, setup, plans);
  std::vector<WorkerParts> ranks;
  for (size_t i = 0; i < plans.size(); ++i) {
    const auto backend = *OpenDevice(setup.device);
    auto weights = LoadWeights(setup.model_dir, config, plans[i], setup.weights, *backend);
    EXPECT_TRUE(weights.ok()) << weights.status();
    auto parts =
        MakeWorkerParts(config, setup, limits, plans[i], std::make_shared<const ModelWeights>(*std::move(weights)),
                        std::move(communicators[i]));
    EXPECT_TRUE(parts.ok()) << parts.status();
    ranks.push_back(*std::move(parts));
  }
  return ranks;
}

// A chunk of the sequence in slot 0; `begin`: the position of its first token. Logits after every token.
inline Batch ScoredChunk(const std::vector<int32_t>& tokens, int begin) {
  Batch batch;
  batch.token_ids = tokens;
  batch.row_begin = {0, batch.num_tokens()};
  batch.slots = {0};
  if (begin == 0) {
    batch.slot_starts.push_back({.slot = 0, .num_prompt_tokens = 1, .sampling = {.temperature = 0}, .tokens = {}});
  }
  for (int i = 0; i < batch.num_tokens(); ++i) {
    const int position = begin + i;
    batch.positions.push_back(position);
    if (position % 16 == 0) batch.block_updates.push_back({0, position / 16, 5 - position / 16});
    batch.sampling.push_back({0, position + 1, std::nullopt});
  }
  return batch;
}

using Rows = std::vector<std::vector<float>>;  // [tokens, vocab]

// Logits after each token of the batches, which are chunks of one sequence.
inline Rows LogitsOfRanks(const ModelConfig& config, const EngineSetup& setup, const std::vector<Batch>& batches) {
  std::vector<WorkerParts> ranks = MakeRanks(config, setup, *OpenCommunicators(setup.parallel));
  std::vector<Rows> shares(ranks.size());
  const auto run = [&batches](WorkerParts& rank, Rows& share) {
    for (const Batch& batch : batches) {
      rank.input.Load(batch, *rank.backend);
      Tensor hidden = rank.model.Hidden(rank.input);
      if (rank.stage.IsFirst()) {
        hidden = rank.model.Embed(rank.input);
      } else {
        rank.stage.ReceiveHidden(hidden);
      }
      hidden = rank.model.RunLayers(rank.input, hidden, rank.kv_cache);
      if (!rank.stage.IsLast()) {
        rank.stage.SendHidden(hidden);
        continue;
      }
      const Tensor logits = rank.model.Logits(rank.input, hidden);
      for (int64_t row = 0; row < logits.rows; ++row) {
        share.emplace_back(logits.Row<float>(row), logits.Row<float>(row) + logits.cols);
      }
    }
    EXPECT_TRUE(rank.backend->Synchronize().ok());
  };
  std::vector<std::thread> threads;
  for (size_t i = 0; i < ranks.size(); ++i) threads.emplace_back(run, std::ref(ranks[i]), std::ref(shares[i]));
  for (std::thread& thread : threads) thread.join();

  const auto last_stage = static_cast<size_t>(setup.parallel.num_ranks() - setup.parallel.tensor);
  Rows logits(shares[last_stage].size());
  for (size_t rank = last_stage; rank < ranks.size(); ++rank) {
    for (size_t row = 0; row < logits.size(); ++row) {
      logits[row].insert(logits[row].end(), shares[rank][row].begin(), shares[rank][row].end());
    }
  }
  return logits;
}

}  // namespace weft
