#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "engine/step_input.h"
#include "kernels/device.h"

namespace weft {
namespace {

constexpr int32_t kVocab = 8;

// A sampler over two slots; every step's logits fall from token 0 to token 7, so greedy draws the lowest allowed id.
struct Bench {
  Bench()
      : backend(*OpenDevice({.num_threads = 1})),
        input(*StepInput::Allocate(
            {.max_model_len = 16, .num_blocks = 1, .block_size = 16, .max_num_seqs = 2, .max_num_batched_tokens = 2},
            *backend)),
        sampler(2, kVocab, TensorParallel({}, *backend, nullptr)) {}

  // One step of one sequence in slot 0: `token` goes in at `position`, the next token comes out.
  int32_t Step(int32_t token, int32_t position, std::vector<SlotStart> starts = {}) {
    Batch batch;
    batch.token_ids = {token};
    batch.positions = {position};
    batch.row_begin = {0, 1};
    batch.slots = {0};
    batch.slot_starts = std::move(starts);
    batch.sampling = {{0, position + 1, std::nullopt}};
    input.Load(batch, *backend);
    fed = input.token_ids()[0];
    sampler.BeginStep(batch);
    std::vector<float> logits;
    for (int32_t id = 0; id < kVocab; ++id) logits.push_back(static_cast<float>(kVocab - id));
    const auto draws = sampler.Draw(batch, DenseTensor(logits.data(), DType::kF32, 1, kVocab), input.last_drawn());
    return sampler.Take(*draws)[0].token;
  }

  std::unique_ptr<Backend> backend;
  StepInput input;
  Sampler sampler;
  int32_t fed = -1;  // what kLastSampled became
};

SlotStart Start(const SamplingParams& params, int32_t num_prompt, std::vector<int32_t> tokens) {
  return {0, num_prompt, params, std::move(tokens)};
}

TEST(SamplerTest, FeedsTheLastDrawnTokenBack) {
  Bench bench;
  SamplingParams params;
  params.temperature = 0;
  params.logit_bias = {{0, -100.0f}};
  EXPECT_EQ(bench.Step(5, 0, {Start(params, 1, {})}), 1);
  EXPECT_EQ(bench.fed, 5);
  bench.Step(kLastSampled, 1);
  EXPECT_EQ(bench.fed, 1);
}

TEST(SamplerTest, BansStopTokensUntilMinTokensAreDrawn) {
  Bench bench;
  SamplingParams params;
  params.temperature = 0;
  params.min_tokens = 2;
  params.banned_before_min = {0};
  EXPECT_EQ(bench.Step(5, 0, {Start(params, 1, {})}), 1);
  EXPECT_EQ(bench.Step(kLastSampled, 1), 1);
  EXPECT_EQ(bench.Step(kLastSampled, 2), 0);
}

TEST(SamplerTest, PenaltiesCountWhatWasDrawn) {
  Bench bench;
  SamplingParams params;
  params.temperature = 0;
  params.frequency_penalty = 1.5f;
  std::vector<int32_t> drawn = {bench.Step(5, 0, {Start(params, 1, {5})})};
  for (int32_t position = 1; position < 5; ++position) drawn.push_back(bench.Step(kLastSampled, position));
  // Logits 8 7 6 ...: each draw costs its token 1.5.
  EXPECT_EQ(drawn, (std::vector<int32_t>{0, 1, 0, 2, 1}));
}

// A sequence that was preempted starts anew with the tokens it had, and goes on as if nothing had happened.
TEST(SamplerTest, APreemptedSequenceDrawsWhatItWouldHaveDrawn) {
  SamplingParams params;
  params.temperature = 0;
  params.frequency_penalty = 1.5f;
  params.repetition_penalty = 1.2f;
  params.min_tokens = 3;
  params.banned_before_min = {2};
  Bench whole;
  std::vector<int32_t> expected = {whole.Step(5, 0, {Start(params, 1, {5})})};
  for (int32_t position = 1; position < 6; ++position) expected.push_back(whole.Step(kLastSampled, position));
  for (size_t kept = 1; kept < expected.size(); ++kept) {
    Bench resumed;
    std::vector<int32_t> tokens = {5};
    tokens.insert(tokens.end(), expected.begin(), expected.begin() + static_cast<int64_t>(kept));
    const int32_t position = static_cast<int32_t>(kept);
    EXPECT_EQ(resumed.Step(tokens.back(), position, {Start(params, 1, tokens)}), expected[kept]) << kept;
  }
}

TEST(SamplerTest, ASlotForgetsWhoHeldItBefore) {
  Bench bench;
  SamplingParams penalised;
  penalised.temperature = 0;
  penalised.presence_penalty = 2;
  EXPECT_EQ(bench.Step(5, 0, {Start(penalised, 1, {5})}), 0);
  EXPECT_EQ(bench.Step(kLastSampled, 1), 1);
  EXPECT_EQ(bench.Step(5, 0, {Start(penalised, 1, {5})}), 0);
}

}  // namespace
}  // namespace weft
