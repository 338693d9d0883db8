// What goes over the link comes out as it went in; what was changed on its way is refused, or still within limits.
#include <cmath>
#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "engine/remote/placement.h"
#include "engine/remote/setup_messages.h"
#include "engine/remote/step_messages.h"
#include "gtest/gtest.h"

namespace weft {
namespace {

constexpr EngineLimits kLimits = {.max_model_len = 64,
                                  .num_blocks = 16,
                                  .block_size = 16,
                                  .max_num_seqs = 4,
                                  .max_num_batched_tokens = 32,
                                  .vocab_size = 1000};

Batch RichBatch() {
  SamplingParams sampling{.temperature = 0.5f,
                          .top_k = 3,
                          .top_p = 0.25f,
                          .min_p = 0.125f,
                          .repetition_penalty = 1.5f,
                          .presence_penalty = -1,
                          .frequency_penalty = 2,
                          .logit_bias = {{7, -INFINITY}, {9, 1.5f}},
                          .seed = ~uint64_t{0},
                          .sequence = 3,
                          .num_logprobs = 5,
                          .score_prompt = true,
                          .min_tokens = 4,
                          .banned_before_min = {1, 2}};
  return {.step = 12,
          .token_ids = {5, 6, 7, kLastSampled},
          .positions = {0, 1, 2, 40},
          .row_begin = {0, 3, 4},
          .slots = {2, 0},
          .slot_starts = {{.slot = 2, .num_prompt_tokens = 3, .sampling = sampling, .tokens = {5, 6, 7}}},
          .block_updates = {{.slot = 2, .index = 0, .block = 15}},
          .sampling = {{.row = 0, .position = 2, .known = 7}, {.row = 1, .position = 41, .known = std::nullopt}}};
}

v1::Step Written(const Batch& batch) {
  v1::Step message;
  WriteStep(batch, message);
  return message;
}

TEST(StepMessagesTest, AStepComesOutAsItWentIn) {
  const v1::Step message = Written(RichBatch());
  const auto batch = ReadStep(message, kLimits);
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(Written(*batch).SerializeAsString(), message.SerializeAsString());
  EXPECT_EQ(batch->slot_starts[0].sampling.logit_bias, RichBatch().slot_starts[0].sampling.logit_bias);
  EXPECT_EQ(batch->sampling[0].known, 7);
  EXPECT_FALSE(batch->sampling[1].known.has_value());
}

TEST(StepMessagesTest, RefusesWhatNoWorkerCanExecute) {
  const struct {
    const char* what;
    void (*spoil)(v1::Step&);
  } kCases[] = {
      {"token", [](v1::Step& m) { m.set_token_ids(0, 1000); }},
      {"negative token", [](v1::Step& m) { m.set_token_ids(0, -2); }},
      {"position", [](v1::Step& m) { m.set_positions(0, 64); }},
      {"missing position", [](v1::Step& m) { m.mutable_positions()->RemoveLast(); }},
      {"rows out of order", [](v1::Step& m) { m.set_row_begin(1, 9); }},
      {"no rows", [](v1::Step& m) { m.clear_row_begin(); }},
      {"slot", [](v1::Step& m) { m.set_slots(0, 4); }},
      {"start's slot", [](v1::Step& m) { m.mutable_slot_starts(0)->set_slot(-1); }},
      {"start's token", [](v1::Step& m) { m.mutable_slot_starts(0)->set_tokens(0, 1000); }},
      {"start's prompt", [](v1::Step& m) { m.mutable_slot_starts(0)->set_num_prompt_tokens(-1); }},
      {"bias", [](v1::Step& m) { m.mutable_slot_starts(0)->mutable_sampling()->add_bias_tokens(1); }},
      {"temperature", [](v1::Step& m) { m.mutable_slot_starts(0)->mutable_sampling()->set_temperature(NAN); }},
      {"log-probabilities",
       [](v1::Step& m) { m.mutable_slot_starts(0)->mutable_sampling()->set_num_logprobs(1 << 30); }},
      {"block", [](v1::Step& m) { m.set_block_updates(2, 16); }},
      {"block's index", [](v1::Step& m) { m.set_block_updates(1, 4); }},
      {"half a block update", [](v1::Step& m) { m.add_block_updates(0); }},
      {"row to draw", [](v1::Step& m) { m.mutable_sampling(0)->set_row(2); }},
      {"position to draw", [](v1::Step& m) { m.mutable_sampling(0)->set_position(65); }},
      {"known token", [](v1::Step& m) { m.mutable_sampling(0)->set_known(-1); }},
  };
  for (const auto& [what, spoil] : kCases) {
    v1::Step message = Written(RichBatch());
    spoil(message);
    EXPECT_EQ(ReadStep(message, kLimits).status().code(), absl::StatusCode::kInvalidArgument) << what;
  }
}

TEST(StepMessagesTest, NoChangedByteGetsPastTheLimits) {
  const std::string text = Written(RichBatch()).SerializeAsString();
  std::mt19937 random(7);
  int num_read = 0;
  for (int i = 0; i < 50'000; ++i) {
    std::string changed = text;
    for (unsigned n = random() % 3 + 1; n > 0; --n) changed[random() % changed.size()] = static_cast<char>(random());
    v1::Step message;
    if (!message.ParseFromString(changed)) continue;
    const auto batch = ReadStep(message, kLimits);
    if (!batch.ok()) continue;
    ++num_read;
    for (const int32_t slot : batch->slots) ASSERT_TRUE(slot >= 0 && slot < kLimits.max_num_seqs);
    for (const BlockUpdate& update : batch->block_updates) {
      ASSERT_TRUE(update.block >= 0 && update.block < kLimits.num_blocks);
    }
    ASSERT_EQ(batch->row_begin.back(), batch->num_tokens());
  }
  EXPECT_GT(num_read, 0);
}

TEST(StepMessagesTest, AResultComesOutAsItWentIn) {
  const StepResult result{.step = 3,
                          .tokens = {{.token = 5, .logprob = -1.5f, .top_logprobs = {{5, -1.5f}, {6, -2}}},
                                     {.token = 9, .in_prompt = true},
                                     {.token = 0, .finite = false}},
                          .compute_time = absl::Microseconds(7)};
  v1::StepDone message;
  WriteResult(result, message);
  const auto read = ReadResult(message, 3, kLimits);
  ASSERT_TRUE(read.ok()) << read.status();
  v1::StepDone again;
  WriteResult(*read, again);
  EXPECT_EQ(again.SerializeAsString(), message.SerializeAsString());
  EXPECT_FALSE(ReadResult(message, 2, kLimits).ok()) << "another number of tokens";
  message.mutable_tokens(0)->set_token(1000);
  EXPECT_FALSE(ReadResult(message, 3, kLimits).ok());
}

TEST(SetupMessagesTest, RanksThatDisagreeOnThePlanSayHow) {
  ModelConfig config;
  config.num_heads = config.num_kv_heads = 2;
  config.num_layers = 10;
  config.hidden_size = 64;
  config.head_dim = 32;
  config.intermediate_size = 128;
  config.vocab_size = 1000;
  const auto plans = *MakePlans(config, {.pipeline = 2, .layers = {4, 6}});
  v1::RankPlace place;
  WritePlan(plans[1], place);
  EXPECT_TRUE(CheckPlan(place, plans).ok());
  const absl::Status other = CheckPlan(place, *MakePlans(config, {.pipeline = 2, .layers = {5, 5}}));
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(other.message()).find("rank 1 has layers 5 .. 9 here, and 4 .. 9"), std::string::npos) << other;
  place.set_rank(2);
  EXPECT_FALSE(CheckPlan(place, plans).ok());
}

TEST(SetupMessagesTest, ASetupComesOutAsItWentInAndNumbersAreChecked) {
  EngineSetup setup{.model_dir = "/m", .max_model_len = 64, .kv_cache_bytes = 1 << 20};
  setup.parallel = {.tensor = 2, .pipeline = 2, .layers = {1, 2}};
  setup.weights.dtype = DType::kI8;
  v1::Assignment message;
  WriteSetup(setup, message);
  const auto read = ReadSetup(message);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->parallel.layers, setup.parallel.layers);
  EXPECT_EQ(read->weights.dtype, DType::kI8);
  message.set_weight_dtype(77);
  EXPECT_FALSE(ReadSetup(message).ok());
  message.set_weight_dtype(0);
  message.set_tensor_size(0);
  EXPECT_FALSE(ReadSetup(message).ok());
}

TEST(PlacementTest, GroupsTalkByWhereTheirRanksAre) {
  const auto kinds = [](const ParallelSizes& sizes, int nodes) {
    std::string text;
    const std::vector<PlacedWorker> workers = *PlaceRanks(sizes, nodes);
    for (const PlacedWorker& worker : workers) {
      text += std::to_string(worker.node_rank) + ":";
      for (const PlacedRank& rank : worker.ranks) {
        text += std::to_string(static_cast<int>(rank.tensor_group)) + std::to_string(static_cast<int>(rank.stages));
      }
      text += " ";
    }
    return text;
  };
  EXPECT_EQ(kinds({}, 1), "0:00 ");
  EXPECT_EQ(kinds({.tensor = 2}, 1), "0:20 0:20 ");
  EXPECT_EQ(kinds({.tensor = 2, .pipeline = 2}, 2), "0:23 0:23 1:1313 ");  // a stage a host
  EXPECT_EQ(kinds({.tensor = 2, .pipeline = 2}, 4), "0:33 1:33 2:33 3:33 ");
  EXPECT_EQ(PlaceRanks({.tensor = 2}, 3).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace weft
