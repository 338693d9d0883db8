#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "kernels/philox.h"
#include "tests/kernels/backend_fixture.h"

namespace weft {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

class SamplingTest : public IsaTest {
 protected:
  SampleResult SampleOne(std::vector<float> logits, const SampleArgs& args) {
    SampleResult result;
    const auto vocab = static_cast<int64_t>(logits.size());
    backend_->Sample(View(logits, 1, vocab), {&args, 1}, {&result, 1});
    return result;
  }

  // How often each token is drawn over `draws` positions.
  std::map<int32_t, int> Histogram(const std::vector<float>& logits, SampleArgs args, int draws) {
    std::map<int32_t, int> histogram;
    for (int i = 0; i < draws; ++i) {
      args.position = i;
      ++histogram[SampleOne(logits, args).token];
    }
    return histogram;
  }

  std::unique_ptr<cpu::CpuBackend> backend_ = MakeBackend();
};

SampleArgs Greedy() {
  SampleArgs args;
  args.temperature = 0;
  return args;
}

// The probabilities that the rule gives, by sorting in double. No penalties.
std::vector<double> ReferenceProbabilities(const std::vector<float>& logits, const SampleArgs& args) {
  const size_t vocab = logits.size();
  std::vector<size_t> order(vocab);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  size_t kept = vocab;
  if (args.top_k > 0) kept = std::min(kept, static_cast<size_t>(args.top_k));
  std::vector<double> weight(vocab, 0.0);
  double sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    sum += weight[order[i]] = std::exp((static_cast<double>(logits[order[i]]) - logits[order[0]]) / args.temperature);
  }
  double reached = 0;
  for (size_t i = 0; i < kept; ++i) {
    const bool in_nucleus = i == 0 || args.top_p >= 1 || reached < args.top_p * sum;
    reached += weight[order[i]];
    if (!in_nucleus || weight[order[i]] < args.min_p) weight[order[i]] = 0;
  }
  const double total = std::accumulate(weight.begin(), weight.end(), 0.0);
  for (double& w : weight) w /= total;
  return weight;
}

TEST_P(SamplingTest, ScoresAKnownTokenAndDrawsNothing) {
  SampleArgs args;
  args.num_logprobs = 2;
  args.known = 2;
  const SampleResult result = SampleOne({1, 3, 2, -kInf}, args);
  const double log_sum = std::log(std::exp(1.0) + std::exp(3.0) + std::exp(2.0));
  EXPECT_EQ(result.token, 2);
  EXPECT_NEAR(result.logprob, 2 - log_sum, 1e-6);
  ASSERT_EQ(result.top_logprobs.size(), 2u);
  EXPECT_EQ(result.top_logprobs[0].token, 1);
}

TEST_P(SamplingTest, GreedyTakesTheLowestIdOfTheBest) {
  EXPECT_EQ(SampleOne({1, 3, 3, 2}, Greedy()).token, 1);
  EXPECT_EQ(SampleOne({-kInf, -5, -kInf}, Greedy()).token, 1);
  std::vector<float> logits = RandomFloats(1003, 1);
  logits[1002] = 50;
  EXPECT_EQ(SampleOne(logits, Greedy()).token, 1002);
}

TEST_P(SamplingTest, DrawsFollowTheDistribution) {
  struct Case {
    float temperature;
    int32_t top_k;
    float top_p, min_p;
  };
  const Case cases[] = {{1, 0, 1, 0},        {0.7f, 0, 1, 0},      {1.5f, 5, 1, 0}, {1, 0, 0.8f, 0}, {1, 0, 1, 0.2f},
                        {0.9f, 10, 0.9f, 0}, {1, 8, 0.95f, 0.05f}, {1, 0, 0.0f, 0}, {1, 1, 1, 0}};
  constexpr int kDraws = 4000;
  const std::vector<float> logits = RandomFloats(37, 2, 1.5f);
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c.temperature << " " << c.top_k << " " << c.top_p << " " << c.min_p);
    SampleArgs args;
    args.temperature = c.temperature;
    args.top_k = c.top_k;
    args.top_p = c.top_p;
    args.min_p = c.min_p;
    args.seed = 1234;
    const std::vector<double> expected = ReferenceProbabilities(logits, args);
    std::map<int32_t, int> histogram = Histogram(logits, args, kDraws);
    double chi_square = 0;
    int bins = 0;
    double rare_expected = 0;  // tokens of fewer than 8 expected draws share a bin
    double rare_drawn = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double mean = expected[i] * kDraws;
      const double drawn = histogram[static_cast<int32_t>(i)];
      if (expected[i] == 0) {
        EXPECT_EQ(drawn, 0) << "token " << i << " is cut";
      } else if (mean < 8) {
        rare_expected += mean;
        rare_drawn += drawn;
      } else {
        chi_square += (drawn - mean) * (drawn - mean) / mean;
        ++bins;
      }
    }
    if (rare_expected > 0) {
      chi_square += (rare_drawn - rare_expected) * (rare_drawn - rare_expected) / rare_expected;
      ++bins;
    }
    // Wilson and Hilferty: the 99.99 % point of chi-square with bins - 1 degrees of freedom.
    const double df = std::max(1, bins - 1);
    const double limit = df * std::pow(1 - 2 / (9 * df) + 3.72 * std::sqrt(2 / (9 * df)), 3);
    EXPECT_LT(chi_square, limit) << bins << " bins";
  }
}

TEST_P(SamplingTest, KeepsExactlyTheReferenceSetInALargeVocabulary) {
  // Flat enough that the nucleus holds hundreds, drawn often enough to hit its edge if it were off by much.
  std::vector<float> logits = RandomFloats(6000, 3);
  for (size_t i = 0; i < logits.size(); i += 3) logits[i] = std::round(logits[i] * 4) / 4;  // many ties
  for (const auto& [top_k, top_p] : std::vector<std::pair<int32_t, float>>{{0, 0.5f}, {300, 1.0f}, {1000, 0.3f}}) {
    SampleArgs args;
    args.top_k = top_k;
    args.top_p = top_p;
    const std::vector<double> expected = ReferenceProbabilities(logits, args);
    for (int position = 0; position < 100; ++position) {
      args.position = position;
      EXPECT_GT(expected[SampleOne(logits, args).token], 0);
    }
  }
}

TEST_P(SamplingTest, TiesAtTheCutGoToTheLowestIds) {
  SampleArgs args;
  args.top_k = 3;
  const std::vector<float> logits(500, 1.0f);
  for (const auto& [token, count] : Histogram(logits, args, 200)) EXPECT_LT(token, 3) << count;
  args.top_k = 0;
  args.top_p = 0.01f;  // five of five hundred
  for (const auto& [token, count] : Histogram(logits, args, 200)) EXPECT_LT(token, 5) << count;
}

TEST_P(SamplingTest, TheDrawIsARaceOfExponentials) {
  // What another device must reproduce: argmin of -log(1 - u) / weight, u from token % 4 of group token / 4.
  const std::vector<float> logits = RandomFloats(101, 4, 3.0f);
  for (int64_t position = 0; position < 50; ++position) {
    SampleArgs args;
    args.seed = 0x123456789abcdef0;
    args.sequence = 2;
    args.position = position + (int64_t{1} << 33);
    args.temperature = 0.8f;
    int32_t expected = -1;
    double best = std::numeric_limits<double>::infinity();
    for (int32_t i = 0; i < 101; ++i) {
      const Philox4 words = SamplingWords(args.seed, args.sequence, args.position, static_cast<uint32_t>(i) / 4);
      const double time = -std::log1p(-UnitInterval(words.word[i % 4])) / std::exp(logits[i] / 0.8);
      if (time < best) {
        best = time;
        expected = i;
      }
    }
    EXPECT_EQ(SampleOne(logits, args).token, expected);
  }
}

TEST_P(SamplingTest, SeedSequenceAndPositionDecideAndNothingElse) {
  const std::vector<float> logits = RandomFloats(1000, 5);
  constexpr int kRows = 16;
  std::vector<float> batch;
  std::vector<SampleArgs> args(kRows);
  for (int r = 0; r < kRows; ++r) {
    batch.insert(batch.end(), logits.begin(), logits.end());
    args[r].seed = static_cast<uint64_t>(r) / 2;
    args[r].sequence = r % 2;
    args[r].position = 7;
  }
  std::vector<SampleResult> results(kRows);
  backend_->Sample(View(batch, kRows, 1000), args, absl::MakeSpan(results));
  std::map<int32_t, int> distinct;
  for (int r = 0; r < kRows; ++r) {
    EXPECT_EQ(results[r].token, SampleOne(logits, args[r]).token) << r;
    ++distinct[results[r].token];
  }
  EXPECT_GT(distinct.size(), 12);
}

TEST_P(SamplingTest, PenaltiesAndBiasesApplyInOrder) {
  const TokenCount counts[] = {{0, 1, 0}, {1, 0, 2}, {2, 1, 1}};
  const LogitBias biases[] = {{3, -kInf}, {4, 1.5f}};
  SampleArgs args = Greedy();
  args.repetition_penalty = 2;
  args.presence_penalty = 0.5f;
  args.frequency_penalty = 0.25f;
  args.counts = counts;
  args.biases = biases;
  // 0: 8 / 2 = 4. 1: -1 * 2 - 0.5 - 0.5 = -3. 2: 9 / 2 - 0.5 - 0.25 = 3.75. 3: banned. 4: 2 + 1.5 = 3.5.
  const std::vector<float> logits = {8, -1, 9, 100, 2};
  EXPECT_EQ(SampleOne(logits, args).token, 0);
  // Found out one by one: ban the best, and the next must come.
  std::vector<LogitBias> bans(std::begin(biases), std::end(biases));
  for (int32_t expected : {0, 2, 4, 1}) {
    args.biases = bans;
    EXPECT_EQ(SampleOne(logits, args).token, expected);
    bans.push_back({expected, -kInf});
  }
}

TEST_P(SamplingTest, LogprobsAreOfTheRawDistribution) {
  const std::vector<float> logits = RandomFloats(300, 6, 2.0f);
  const LogitBias biases[] = {{7, 100.0f}};
  SampleArgs args;
  args.temperature = 0.5f;
  args.top_k = 1;
  args.num_logprobs = 4;
  args.biases = biases;
  const SampleResult result = SampleOne(logits, args);
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit));
  EXPECT_EQ(result.token, 7);
  EXPECT_NEAR(result.logprob, logits[7] - std::log(sum), 1e-5);
  ASSERT_EQ(result.top_logprobs.size(), 4);
  std::vector<float> sorted(logits);
  std::sort(sorted.rbegin(), sorted.rend());
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(logits[result.top_logprobs[i].token], sorted[i]);
    EXPECT_NEAR(result.top_logprobs[i].logprob, sorted[i] - std::log(sum), 1e-5);
  }
}

TEST_P(SamplingTest, TopLogprobsBreakTiesByIdAndStopAtTheVocabulary) {
  SampleArgs args = Greedy();
  args.num_logprobs = 10;
  const SampleResult result = SampleOne({1, 5, 1, 5}, args);
  std::vector<int32_t> tokens;
  for (const TokenLogprob& entry : result.top_logprobs) tokens.push_back(entry.token);
  EXPECT_EQ(tokens, (std::vector<int32_t>{1, 3, 0, 2}));
  args.num_logprobs = 0;
  EXPECT_TRUE(SampleOne({1, 5}, args).top_logprobs.empty());
  EXPECT_NEAR(SampleOne({1, 1}, args).logprob, std::log(0.5), 1e-6);
}

TEST_P(SamplingTest, ReportsLogitsThatAreNotFinite) {
  const LogitBias ban_all[] = {{0, -kInf}, {1, -kInf}};
  for (SampleArgs args : {Greedy(), SampleArgs{}}) {
    for (size_t at : {0, 5, 18, 32}) {
      std::vector<float> logits(33, 1.0f);
      logits[at] = std::nanf("");
      EXPECT_FALSE(SampleOne(logits, args).finite) << at;
      logits[at] = kInf;
      EXPECT_FALSE(SampleOne(logits, args).finite) << at;
      logits[at] = -kInf;
      EXPECT_TRUE(SampleOne(logits, args).finite) << at;
    }
    EXPECT_FALSE(SampleOne({-kInf, -kInf}, args).finite);
    args.biases = ban_all;
    EXPECT_FALSE(SampleOne({1, 2}, args).finite);
  }
}

TEST_P(SamplingTest, TinyTemperaturesAreNearlyGreedy) {
  SampleArgs args;
  args.temperature = 1e-30f;
  for (args.position = 0; args.position < 20; ++args.position) EXPECT_EQ(SampleOne({1, 2, 1.9f}, args).token, 1);
}

INSTANTIATE_FOR_EACH_ISA(SamplingTest);

}  // namespace
}  // namespace weft
