// Sampling on a CUDA device draws what the CPU backend draws: the same token for the same seed, whoever shares the
// step.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/kernels/cuda/ops_fixture.h"
#include "tests/kernels/cuda/sampling_rules.h"

namespace weft {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

class SamplingOpsTest : public OpsTest {
 protected:
  uint32_t Seed() const { return static_cast<uint32_t>(std::get<Order>(GetParam())) + 1; }

  // logits: [rules, vocab]
  std::vector<SampleResult> OnDevice(const std::vector<float>& logits, const std::vector<Rule>& rules) {
    const auto rows = static_cast<int64_t>(rules.size());
    const Twin twin(*device_, DType::kF32, rows, static_cast<int64_t>(logits.size()) / rows, logits);
    std::vector<SampleResult> results(rules.size());
    device_->Sample(twin.device(), ArgsOf(rules), absl::MakeSpan(results));
    const absl::Status status = device_->Synchronize();
    EXPECT_TRUE(status.ok()) << status;
    return results;
  }

  SampleResult OneOnDevice(const std::vector<float>& logits, const SampleArgs& args) {
    Rule rule{.args = args, .counts = {}, .biases = {args.biases.begin(), args.biases.end()}};
    return OnDevice(logits, {rule})[0];
  }

  std::vector<SampleResult> OnCpu(std::vector<float> logits, const std::vector<Rule>& rules) {
    const auto rows = static_cast<int64_t>(rules.size());
    std::vector<SampleResult> results(rules.size());
    cpu_.Sample(View(logits, rows, static_cast<int64_t>(logits.size()) / rows), ArgsOf(rules), absl::MakeSpan(results));
    return results;
  }
};

void ExpectEqual(const SampleResult& seen, const SampleResult& expected) {
  ASSERT_EQ(seen.finite, expected.finite);
  if (!expected.finite) return;
  ASSERT_EQ(seen.token, expected.token);
  ASSERT_FLOAT_EQ(seen.logprob, expected.logprob);
  ASSERT_EQ(seen.top_logprobs.size(), expected.top_logprobs.size());
  for (size_t i = 0; i < expected.top_logprobs.size(); ++i) {
    ASSERT_EQ(seen.top_logprobs[i].token, expected.top_logprobs[i].token) << i;
    ASSERT_FLOAT_EQ(seen.top_logprobs[i].logprob, expected.top_logprobs[i].logprob) << i;
  }
}

struct Draws {
  int32_t vocab;
  int num_calls, rows_a_call;
};
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr Draws kDraws[] = {{1, 1, 20},  {2, 1, 40},   {31, 2, 40},   {32, 2, 40},
                            {33, 2, 40}, {260, 2, 40}, {1000, 1, 30}, {4099, 1, 10}};
#else
// 7,250 in each of three orders.
constexpr Draws kDraws[] = {{1, 1, 100},   {2, 5, 100},    {31, 15, 100},  {32, 15, 100},
                            {33, 15, 100}, {260, 13, 100}, {1000, 8, 100}, {4099, 1, 50}};
#endif

TEST_P(SamplingOpsTest, DrawsWhatTheCpuDraws) {
  for (const Draws& draws : kDraws) {
    RandomRules random(Seed() * 100'000 + static_cast<uint32_t>(draws.vocab));
    for (int call = 0; call < draws.num_calls; ++call) {
      std::vector<float> logits;
      std::vector<Rule> rules;
      for (int i = 0; i < draws.rows_a_call; ++i) {
        const std::vector<float> row = random.Row(draws.vocab);
        logits.insert(logits.end(), row.begin(), row.end());
        rules.push_back(random.RuleFor(draws.vocab));
      }
      const std::vector<SampleResult> seen = OnDevice(logits, rules), expected = OnCpu(logits, rules);
      for (size_t i = 0; i < rules.size(); ++i) {
        const SampleArgs& a = rules[i].args;
        SCOPED_TRACE(testing::Message() << "vocab " << draws.vocab << ", call " << call << ", row " << i
                                        << ": temperature " << a.temperature << ", top_k " << a.top_k << ", top_p "
                                        << a.top_p << ", min_p " << a.min_p << ", " << rules[i].counts.size()
                                        << " counts, " << rules[i].biases.size() << " biases");
        ASSERT_NO_FATAL_FAILURE(ExpectEqual(seen[i], expected[i]));
      }
    }
  }
}

// As many tokens as a large model has, and more than a block's threads take at once.
TEST_P(SamplingOpsTest, DrawsFromALargeVocabulary) {
  constexpr int32_t kVocab = 151'936;
  RandomRules random(Seed());
  std::vector<float> logits = RandomFloats(kVocab, Seed(), 3.0f);
  std::vector<Rule> rules;
  for (const auto& [top_k, top_p, num_logprobs] :
       {std::tuple<int, float, int>{0, 1.0f, -1}, {0, 0.9f, 5}, {0, 0.99999f, -1}, {40, 0.95f, -1}, {100'000, 1, -1}}) {
    Rule rule = random.RuleFor(kVocab);
    rule.args = {.temperature = 1.1f,
                 .top_k = top_k,
                 .top_p = top_p,
                 .seed = rule.args.seed,
                 .position = 5,
                 .num_logprobs = num_logprobs};
    rules.push_back(rule);
  }
  rules.push_back({.args = {.temperature = 0}, .counts = {}, .biases = {}});
  logits.reserve(logits.size() * rules.size());
  for (size_t i = 1; i < rules.size(); ++i) logits.insert(logits.end(), logits.begin(), logits.begin() + kVocab);
  const std::vector<SampleResult> seen = OnDevice(logits, rules), expected = OnCpu(logits, rules);
  for (size_t i = 0; i < rules.size(); ++i) {
    SCOPED_TRACE(i);
    ExpectEqual(seen[i], expected[i]);
  }
}

TEST_P(SamplingOpsTest, ARowsDrawIsItsOwn) {
  constexpr int32_t kVocab = 700;
  RandomRules random(Seed());
  std::vector<float> logits;
  std::vector<Rule> rules;
  for (int i = 0; i < 24; ++i) {
    const std::vector<float> row = random.Row(kVocab);
    logits.insert(logits.end(), row.begin(), row.end());
    rules.push_back(random.RuleFor(kVocab));
    rules.back().args.num_logprobs = i % 4;
  }
  logits[5 * kVocab + 3] = NAN;
  const std::vector<SampleResult> together = OnDevice(logits, rules);
  for (size_t i = 0; i < rules.size(); ++i) {
    const auto begin = logits.begin() + static_cast<int64_t>(i) * kVocab;
    const SampleResult alone = OnDevice({begin, begin + kVocab}, {rules[i]})[0];
    ExpectEqual(together[i], alone);
    EXPECT_TRUE(!alone.finite || SameBits(&together[i].logprob, &alone.logprob, 1));
  }
  EXPECT_FALSE(together[5].finite);
}

TEST_P(SamplingOpsTest, TiesGoToTheLowestIds) {
  std::vector<float> logits(300, 2.0f);
  logits[0] = 1;
  logits[7] = -0.0f;
  EXPECT_EQ(OneOnDevice(logits, {.temperature = 0}).token, 1);
  EXPECT_EQ(OneOnDevice({-0.0f, 0.0f, -1}, {.temperature = 0}).token, 0);
  EXPECT_EQ(OneOnDevice({-1, 0.0f, -0.0f, 0.0f}, {.temperature = 0}).token, 1);
  // Four of 298 equals are kept, by count or by mass: over many draws all four come, and nobody else.
  for (const SampleArgs& cut : {SampleArgs{.top_k = 4}, SampleArgs{.top_p = 3.5f / 298.5f}}) {
    std::vector<int> seen(300);
    for (int64_t position = 0; position < 60; ++position) {
      SampleArgs args = cut;
      args.position = position;
      ++seen[static_cast<size_t>(OneOnDevice(logits, args).token)];
    }
    EXPECT_EQ(seen[1] + seen[2] + seen[3] + seen[4], 60);
    EXPECT_GT(std::min({seen[1], seen[2], seen[3], seen[4]}), 0);
  }
  std::vector<int32_t> top;
  for (const TokenLogprob& entry : OneOnDevice(logits, {.num_logprobs = 3}).top_logprobs) top.push_back(entry.token);
  EXPECT_EQ(top, (std::vector<int32_t>{1, 2, 3}));
}

TEST_P(SamplingOpsTest, ReportsLogitsThatAreNotFinite) {
  const LogitBias ban_all[] = {{0, -kInf}, {1, -kInf}};
  for (const SampleArgs& args : {SampleArgs{.temperature = 0}, SampleArgs{}, SampleArgs{.top_k = 3, .top_p = 0.5f}}) {
    for (const size_t at : {0, 5, 31, 32}) {
      std::vector<float> logits(33, 1.0f);
      for (const float bad : {NAN, -NAN, kInf}) {
        logits[at] = bad;
        EXPECT_FALSE(OneOnDevice(logits, args).finite) << at;
      }
      logits[at] = -kInf;
      EXPECT_TRUE(OneOnDevice(logits, args).finite) << at;
    }
    EXPECT_FALSE(OneOnDevice({-kInf, -kInf}, args).finite);
    SampleArgs banned = args;
    banned.biases = ban_all;
    EXPECT_FALSE(OneOnDevice({1, 2}, banned).finite);
    EXPECT_TRUE(OneOnDevice({1, 2, -5}, banned).finite);
  }
}

TEST_P(SamplingOpsTest, LogprobsAreOfTheLogitsAsTheyCame) {
  const std::vector<float> logits = RandomFloats(300, 6, 2.0f);
  const LogitBias biases[] = {{7, 100.0f}};
  const SampleResult result = OneOnDevice(logits, {.temperature = 0, .num_logprobs = 2, .biases = biases});
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  EXPECT_EQ(result.token, 7);
  EXPECT_NEAR(result.logprob, logits[7] - std::log(sum), 1e-5);
  ASSERT_EQ(result.top_logprobs.size(), 2u);
  const float best = *std::max_element(logits.begin(), logits.end());
  EXPECT_EQ(logits[static_cast<size_t>(result.top_logprobs[0].token)], best);
  EXPECT_NEAR(result.top_logprobs[0].logprob, best - std::log(sum), 1e-5);
}

// Rows that lie further apart than they are long.
TEST_P(SamplingOpsTest, RowsMayHaveAStride) {
  const std::vector<float> wide = RandomFloats(3 * 50, 1);
  Twin twin(*device_, DType::kF32, 3, 50, wide);
  Tensor logits = twin.device();
  logits.cols = 41;
  const std::vector<SampleArgs> args(3, {.temperature = 0});
  std::vector<SampleResult> results(3);
  device_->Sample(logits, args, absl::MakeSpan(results));
  for (int64_t row = 0; row < 3; ++row) {
    const auto begin = wide.begin() + row * 50;
    EXPECT_EQ(results[static_cast<size_t>(row)].token, std::max_element(begin, begin + 41) - begin);
  }
}

TEST_P(SamplingOpsTest, NoRowsAreNoError) {
  device_->Sample(DenseTensor(nullptr, DType::kF32, 0, 100), {}, {});
  EXPECT_TRUE(device_->Synchronize().ok());
}

// What can't be drawn is told, and nobody waits for it.
TEST_P(SamplingOpsTest, AnErrorIsKeptAndRowsCountAsDrawn) {
  const Tensor logits = DenseTensor(nullptr, DType::kF32, 1, (int64_t{1} << 22) + 1);
  const SampleArgs args;
  SampleResult result{.token = 5};
  device_->Sample(logits, {&args, 1}, {&result, 1});
  EXPECT_FALSE(result.finite);
  RowSummary summary;
  device_->SummarizeRows(logits, 0, {&args, 1}, {&summary, 1});
  EXPECT_EQ(summary.finite, 0);
  const absl::Status status = device_->Synchronize();
  EXPECT_EQ(status.message(), "device 0, Sample [1, 4194305]: more than 4194304 tokens");
  EXPECT_TRUE(device_->Synchronize().ok());
}

INSTANTIATE_TEST_SUITE_P(Cuda, SamplingOpsTest,
                         testing::Combine(testing::Values(DType::kF32),
                                          testing::Values(Order::kForward, Order::kBackward, Order::kRandom)),
                         NameOf);

}  // namespace
}  // namespace weft
