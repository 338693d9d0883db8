// A row whose tokens are spread over ranks is drawn as the whole row is.
#include "kernels/sampling_shards.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels/device.h"

namespace weft {
namespace {

constexpr int32_t kVocab = 3000;

// One row through the three steps, by ranks whose shares begin at `begins` (the last is the end of the row).
SampleResult DrawShared(Backend& backend, const std::vector<float>& row, const SampleArgs& args,
                        const std::vector<int32_t>& begins, int* num_attempts = nullptr) {
  const size_t num_ranks = begins.size() - 1;
  std::vector<std::vector<float>> shares;
  std::vector<RowSummary> summaries(num_ranks);
  const auto tensor = [&](size_t rank) {
    return DenseTensor(shares[rank].data(), DType::kF32, 1, static_cast<int64_t>(shares[rank].size()));
  };
  std::vector<std::unique_ptr<Backend>> ranks;
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    shares.emplace_back(row.begin() + begins[rank], row.begin() + begins[rank + 1]);
    ranks.push_back(*OpenDevice({.num_threads = 1}));
    ranks[rank]->SummarizeRows(tensor(rank), begins[rank], {&args, 1}, {&summaries[rank], 1});
  }
  const RowSummary whole = MergeSummaries(summaries, args);
  SampleResult result;
  RowDraw draw;
  for (int attempt = 0; !draw.is_drawn; ++attempt) {
    if (num_attempts != nullptr) *num_attempts = attempt + 1;
    draw = DrawOf(args, attempt, whole.most_tokens);
    const auto count = static_cast<size_t>(draw.num_candidates());
    std::vector<DrawCandidate> candidates(num_ranks * count);
    for (size_t rank = 0; rank < num_ranks; ++rank) {
      ranks[rank]->PickCandidates(tensor(rank), begins[rank], {&args, 1}, {&whole, 1}, {&draw, 1},
                                  absl::MakeSpan(candidates).subspan(rank * count, count));
    }
    backend.DrawFromCandidates({&args, 1}, {&whole, 1}, candidates, {&draw, 1}, {&result, 1});
  }
  return result;
}

SampleResult DrawWhole(Backend& backend, std::vector<float> row, const SampleArgs& args) {
  SampleResult result;
  backend.Sample(DenseTensor(row.data(), DType::kF32, 1, kVocab), {&args, 1}, {&result, 1});
  return result;
}

std::vector<float> RandomRow(std::mt19937& rng, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(kVocab);
  for (float& logit : row) logit = normal(rng);
  return row;
}

void ExpectEqual(const SampleResult& shared, const SampleResult& whole) {
  EXPECT_EQ(shared.finite, whole.finite);
  if (!whole.finite) return;
  EXPECT_EQ(shared.token, whole.token);
  EXPECT_NEAR(shared.logprob, whole.logprob, 1e-4);
  ASSERT_EQ(shared.top_logprobs.size(), whole.top_logprobs.size());
  for (size_t i = 0; i < whole.top_logprobs.size(); ++i) {
    EXPECT_EQ(shared.top_logprobs[i].token, whole.top_logprobs[i].token);
    EXPECT_NEAR(shared.top_logprobs[i].logprob, whole.top_logprobs[i].logprob, 1e-4);
  }
}

TEST(SamplingShardsTest, DrawsWhatTheWholeRowDraws) {
  const auto backend = *OpenDevice({.num_threads = 1});
  std::mt19937 rng(1);
  const std::vector<TokenCount> counts = {{5, 1, 2}, {1000, 0, 1}, {2999, 3, 0}};
  const std::vector<LogitBias> biases = {{7, 5.0f}, {1500, 4.0f}, {2998, -std::numeric_limits<float>::infinity()}};
  for (int i = 0; i < 400; ++i) {
    SampleArgs args;
    args.temperature = i % 5 == 0 ? 0.0f : 0.3f + 0.2f * static_cast<float>(i % 7);
    args.top_k = i % 4 == 1 ? 1 + i % 60 : 0;
    args.top_p = i % 3 == 1 ? 0.05f + 0.9f * static_cast<float>(i % 11) / 10 : 1.0f;
    args.min_p = i % 6 == 2 ? 0.02f : 0.0f;
    args.repetition_penalty = i % 2 == 0 ? 1.3f : 1.0f;
    args.frequency_penalty = 0.5f;
    args.seed = static_cast<uint64_t>(i);
    args.position = i;
    args.num_logprobs = i % 8 - 1;
    if (i % 2 == 0) args.counts = counts;
    if (i % 3 == 0) args.biases = biases;
    if (i % 10 == 9) args.known = 1234;
    const std::vector<float> row = RandomRow(rng, 0.5f + static_cast<float>(i % 5));
    for (const auto& begins : {std::vector<int32_t>{0, 1500, kVocab}, {0, 3, 1000, 2998, kVocab}}) {
      SCOPED_TRACE(i);
      ExpectEqual(DrawShared(*backend, row, args, begins), DrawWhole(*backend, row, args));
    }
  }
}

TEST(SamplingShardsTest, ANucleusThatIsWiderThanExpectedIsAskedForAgain) {
  const auto backend = *OpenDevice({.num_threads = 1});
  std::mt19937 rng(2);
  SampleArgs args{.top_p = 0.95f, .seed = 3};
  int num_attempts = 0;
  for (int i = 0; i < 20; ++i) {
    args.position = i;
    const std::vector<float> row = RandomRow(rng, 0.01f);  // nearly flat
    ExpectEqual(DrawShared(*backend, row, args, {0, 1000, kVocab}, &num_attempts), DrawWhole(*backend, row, args));
    EXPECT_GT(num_attempts, 1);
  }
}

TEST(SamplingShardsTest, ARowThatCannotBeDrawnIsToldByAll) {
  const auto backend = *OpenDevice({.num_threads = 1});
  std::mt19937 rng(3);
  const SampleArgs args{.seed = 1};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> row = RandomRow(rng, 1);
    row[2000] = bad;
    EXPECT_FALSE(DrawShared(*backend, row, args, {0, 1000, kVocab}).finite);
  }
  const std::vector<float> nothing(kVocab, -std::numeric_limits<float>::infinity());
  EXPECT_FALSE(DrawShared(*backend, nothing, args, {0, 1000, kVocab}).finite);
  std::vector<float> one = nothing;
  one[2500] = 1;
  EXPECT_EQ(DrawShared(*backend, one, args, {0, 1000, kVocab}).token, 2500);
}

}  // namespace
}  // namespace weft
