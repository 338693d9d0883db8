// A row whose tokens are spread over CUDA devices is drawn as one device, and as the CPU backend, draws the whole row.
#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "tests/kernels/cuda/ops_fixture.h"
#include "tests/kernels/cuda/sampling_rules.h"

namespace weft {
namespace {

class SamplingShardsOpsTest : public OpsTest {
 protected:
  uint32_t Seed() const { return static_cast<uint32_t>(std::get<Order>(GetParam())) + 1; }

  static std::unique_ptr<Backend> OpenCuda() { return *OpenDevice({.kind = DeviceKind::kCuda, .num_threads = 1}); }

  // A rank: its columns of all rows, on a device of its own.
  struct Rank {
    std::unique_ptr<Backend> device;
    int32_t first_token;
    std::unique_ptr<Twin> share;
  };

  // All rows through the three steps, by ranks whose shares begin at `begins` (the last is the end of the vocabulary).
  std::vector<SampleResult> DrawShared(const std::vector<float>& logits, const std::vector<SampleArgs>& args,
                                       const std::vector<int32_t>& begins) {
    const size_t num_rows = args.size(), num_ranks = begins.size() - 1;
    const auto vocab = static_cast<size_t>(begins.back());
    std::vector<Rank> ranks;
    std::vector<RowSummary> summaries(num_ranks * num_rows), rows;
    for (size_t r = 0; r < num_ranks; ++r) {
      std::vector<float> share;
      for (size_t row = 0; row < num_rows; ++row) {
        const auto begin = logits.begin() + static_cast<int64_t>(row * vocab);
        share.insert(share.end(), begin + begins[r], begin + begins[r + 1]);
      }
      ranks.push_back({OpenCuda(), begins[r], nullptr});
      ranks[r].share = std::make_unique<Twin>(*ranks[r].device, DType::kF32, static_cast<int64_t>(num_rows),
                                              begins[r + 1] - begins[r], share);
      ranks[r].device->SummarizeRows(ranks[r].share->device(), begins[r], args,
                                     absl::MakeSpan(summaries).subspan(r * num_rows, num_rows));
    }
    for (size_t row = 0; row < num_rows; ++row) {
      std::vector<RowSummary> shares;
      for (size_t r = 0; r < num_ranks; ++r) shares.push_back(summaries[r * num_rows + row]);
      rows.push_back(MergeSummaries(shares, args[row]));
    }
    return DrawRows(ranks, args, rows);
  }

  std::vector<SampleResult> DrawRows(const std::vector<Rank>& ranks, const std::vector<SampleArgs>& args,
                                     const std::vector<RowSummary>& rows) {
    std::vector<SampleResult> results(args.size());
    std::vector<RowDraw> draws(args.size());
    const auto is_drawn = [](const RowDraw& draw) { return draw.is_drawn; };
    for (num_attempts_ = 0; !std::all_of(draws.begin(), draws.end(), is_drawn); ++num_attempts_) {
      size_t count = 0;
      for (size_t i = 0; i < args.size(); ++i) {
        draws[i] = draws[i].is_drawn ? RowDraw{.is_drawn = true} : DrawOf(args[i], num_attempts_, rows[i].most_tokens);
        count += static_cast<size_t>(draws[i].num_candidates());
      }
      std::vector<DrawCandidate> candidates(ranks.size() * count);
      for (size_t r = 0; r < ranks.size(); ++r) {
        ranks[r].device->PickCandidates(ranks[r].share->device(), ranks[r].first_token, args, rows, draws,
                                        absl::MakeSpan(candidates).subspan(r * count, count));
        EXPECT_TRUE(ranks[r].device->Synchronize().ok());
      }
      device_->DrawFromCandidates(args, rows, candidates, absl::MakeSpan(draws), absl::MakeSpan(results));
      EXPECT_TRUE(device_->Synchronize().ok());
    }
    return results;
  }

  // By one backend, all rows at once.
  std::vector<SampleResult> DrawWhole(Backend& backend, std::vector<float> logits,
                                      const std::vector<SampleArgs>& args) {
    const auto rows = static_cast<int64_t>(args.size()), vocab = static_cast<int64_t>(logits.size()) / rows;
    Twin twin(*device_, DType::kF32, rows, vocab, std::move(logits));
    std::vector<SampleResult> results(args.size());
    backend.Sample(&backend == &cpu_ ? twin.cpu() : twin.device(), args, absl::MakeSpan(results));
    return results;
  }

  int num_attempts_ = 0;
};

void ExpectEqual(const SampleResult& shared, const SampleResult& whole) {
  ASSERT_EQ(shared.finite, whole.finite);
  if (!whole.finite) return;
  ASSERT_EQ(shared.token, whole.token);
  // Sums are rounded otherwise; a known token may be one that the model gave up.
  if (std::isfinite(whole.logprob)) {
    EXPECT_NEAR(shared.logprob, whole.logprob, 1e-4 + 1e-6 * std::fabs(whole.logprob));
  } else {
    EXPECT_EQ(shared.logprob, whole.logprob);
  }
  ASSERT_EQ(shared.top_logprobs.size(), whole.top_logprobs.size());
  for (size_t i = 0; i < whole.top_logprobs.size(); ++i) {
    ASSERT_EQ(shared.top_logprobs[i].token, whole.top_logprobs[i].token) << i;
    EXPECT_NEAR(shared.top_logprobs[i].logprob, whole.top_logprobs[i].logprob, 1e-4);
  }
}

TEST_P(SamplingShardsOpsTest, DrawsWhatTheWholeRowDraws) {
  const std::vector<int32_t> kShares[] = {{0, 1, 2},    {0, 16, 31},         {0, 11, 22, 33},
                                          {0, 3, 1000}, {0, 517, 998, 1000}, {0, 700, 700, 1400}};
  for (const std::vector<int32_t>& begins : kShares) {
    const int32_t vocab = begins.back();
    RandomRules random(Seed() * 1000 + static_cast<uint32_t>(vocab));
    std::vector<float> logits;
    std::vector<Rule> rules;
    for (int i = 0; i < 120; ++i) {
      const std::vector<float> row = random.Row(vocab);
      logits.insert(logits.end(), row.begin(), row.end());
      rules.push_back(random.RuleFor(vocab));
    }
    const std::vector<SampleArgs> args = ArgsOf(rules);
    const std::vector<SampleResult> shared = DrawShared(logits, args, begins);
    const std::vector<SampleResult> whole = DrawWhole(*device_, logits, args), of_cpu = DrawWhole(cpu_, logits, args);
    for (size_t i = 0; i < args.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "vocab " << vocab << ", row " << i << ": temperature " << args[i].temperature
                                      << ", top_k " << args[i].top_k << ", top_p " << args[i].top_p << ", min_p "
                                      << args[i].min_p << ", num_logprobs " << args[i].num_logprobs);
      ASSERT_NO_FATAL_FAILURE(ExpectEqual(shared[i], whole[i]));
      ASSERT_NO_FATAL_FAILURE(ExpectEqual(shared[i], of_cpu[i]));
    }
  }
}

// Each step's structs are those of the CPU backend.
TEST_P(SamplingShardsOpsTest, StepsAreThoseOfTheCpu) {
  constexpr int32_t kFirst = 33, kCols = 400;
  RandomRules random(Seed());
  for (int i = 0; i < 60; ++i) {
    Rule rule = random.RuleFor(kFirst + kCols);
    if (i % 3 == 0) rule.args.top_k = 25;
    const SampleArgs args = rule.Args();
    Twin logits(*device_, DType::kF32, 1, kCols, random.Row(kCols));
    RowSummary seen, expected;
    device_->SummarizeRows(logits.device(), kFirst, {&args, 1}, {&seen, 1});
    cpu_.SummarizeRows(logits.cpu(), kFirst, {&args, 1}, {&expected, 1});
    ASSERT_EQ(seen.finite, expected.finite);
    ASSERT_EQ(seen.num_tokens, expected.num_tokens);
    if (expected.finite == 0) continue;
    ASSERT_EQ(seen.max, expected.max);
    ASSERT_EQ(seen.raw_max, expected.raw_max);
    ASSERT_EQ(seen.sum, expected.sum);
    ASSERT_EQ(seen.raw_sum, expected.raw_sum);
    ASSERT_EQ(seen.known_raw, args.num_logprobs >= 0 ? expected.known_raw : seen.known_raw);
    const RowSummary row = MergeSummaries({&seen, 1}, args);
    const RowDraw draw = DrawOf(args, 0, kCols);
    const auto count = static_cast<size_t>(draw.num_candidates());
    std::vector<DrawCandidate> picked(count), wanted(count);
    device_->PickCandidates(logits.device(), kFirst, {&args, 1}, {&row, 1}, {&draw, 1}, absl::MakeSpan(picked));
    cpu_.PickCandidates(logits.cpu(), kFirst, {&args, 1}, {&row, 1}, {&draw, 1}, absl::MakeSpan(wanted));
    for (size_t j = 0; j < count; ++j) {
      SCOPED_TRACE(testing::Message() << i << ", candidate " << j);
      ASSERT_EQ(picked[j].token, wanted[j].token);
      ASSERT_EQ(picked[j].logit, wanted[j].logit);
      ASSERT_EQ(picked[j].raw, wanted[j].raw);
      ASSERT_DOUBLE_EQ(picked[j].time, wanted[j].time);
    }
  }
}

TEST_P(SamplingShardsOpsTest, ANucleusThatIsWiderThanExpectedIsAskedForAgain) {
  const std::vector<float> logits = RandomFloats(3000, Seed(), 0.01f);  // nearly flat
  for (int64_t position = 0; position < 4; ++position) {
    const std::vector<SampleArgs> args = {
        {.top_p = 0.95f, .seed = 3, .position = position, .num_logprobs = 3}, {.temperature = 0}, {.top_p = 1e-3f}};
    std::vector<float> rows = logits;
    for (size_t i = 1; i < args.size(); ++i) rows.insert(rows.end(), logits.begin(), logits.end());
    const std::vector<SampleResult> shared = DrawShared(rows, args, {0, 1000, 3000});
    EXPECT_GT(num_attempts_, 1);
    const std::vector<SampleResult> whole = DrawWhole(*device_, rows, args);
    for (size_t i = 0; i < args.size(); ++i) ExpectEqual(shared[i], whole[i]);
  }
}

TEST_P(SamplingShardsOpsTest, ARowThatCannotBeDrawnIsToldByAll) {
  const std::vector<int32_t> begins = {0, 100, 300};
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<float> nothing(300, -kInf);
  for (const float bad : {NAN, kInf}) {
    std::vector<float> row = RandomFloats(300, 3);
    row[200] = bad;
    EXPECT_FALSE(DrawShared(row, {SampleArgs{}}, begins)[0].finite);
  }
  EXPECT_FALSE(DrawShared(nothing, {SampleArgs{}}, begins)[0].finite);
  std::vector<float> one = nothing;
  one[250] = 1;
  for (const SampleArgs& args : {SampleArgs{}, SampleArgs{.temperature = 0}, SampleArgs{.top_k = 3}}) {
    EXPECT_EQ(DrawShared(one, {args}, begins)[0].token, 250);
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, SamplingShardsOpsTest,
                         testing::Combine(testing::Values(DType::kF32),
                                          testing::Values(Order::kForward, Order::kBackward, Order::kRandom)),
                         NameOf);

}  // namespace
}  // namespace weft
