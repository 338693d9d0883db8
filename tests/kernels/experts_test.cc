// Routing to experts, grouping, the linear of each, and the way back.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/kernels/backend_fixture.h"

namespace weft {
namespace {

constexpr DType kWeightTypes[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kI8};

// What the ops write, in host memory.
struct Routing {
  Routing(int64_t tokens, int choices) : num_tokens(tokens), k(choices), ids(Pairs()), weights(Pairs()) {}

  size_t Pairs() const { return static_cast<size_t>(num_tokens * k); }
  TokenExperts experts() { return {ids.data(), weights.data(), num_tokens, k}; }

  int64_t num_tokens;
  int k;
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

struct Grouping {
  Grouping(size_t num_pairs, int num_experts)
      : begin(static_cast<size_t>(num_experts) + 1, -5), tokens(num_pairs, -5), places(num_pairs, -5) {}

  ExpertGroups groups(int64_t* load = nullptr) { return {begin.data(), tokens.data(), places.data(), load}; }

  std::vector<int32_t> begin, tokens, places;
};

// k different experts for each token, drawn at random; `unused` gets none.
Routing RandomRouting(int64_t num_tokens, int num_experts, int k, uint32_t seed, int unused = -1) {
  Routing routing(num_tokens, k);
  std::mt19937 generator(seed);
  std::vector<int32_t> order(static_cast<size_t>(num_experts));
  std::iota(order.begin(), order.end(), 0);
  if (unused >= 0) order.erase(order.begin() + unused);
  for (size_t t = 0; t < static_cast<size_t>(num_tokens); ++t) {
    std::shuffle(order.begin(), order.end(), generator);
    std::copy_n(order.begin(), k, routing.ids.begin() + static_cast<ptrdiff_t>(t) * k);
  }
  routing.weights = RandomFloats(static_cast<int64_t>(routing.Pairs()), seed + 1);
  return routing;
}

class ExpertsTest : public IsaTest {};

TEST_P(ExpertsTest, RoutingMatchesTheReference) {
  struct Shape {
    int64_t tokens;
    int num_experts, k;
  };
  const auto backend = MakeBackend();
  uint32_t seed = 0;
  for (const Shape& s : {Shape{1, 1, 1}, Shape{1, 8, 2}, Shape{7, 8, 8}, Shape{300, 60, 4}, Shape{65, 128, 8}}) {
    for (const bool normalize : {false, true}) {
      SCOPED_TRACE(testing::Message() << s.tokens << " tokens, " << s.k << " of " << s.num_experts);
      std::vector<float> logits = RandomFloats(s.tokens * s.num_experts, ++seed, 3.0f);
      const std::vector<float> given = logits;
      Routing routing(s.tokens, s.k);
      backend->RouteTokens(View(logits, s.tokens, s.num_experts), normalize, routing.experts());
      for (int64_t t = 0; t < s.tokens; ++t) {
        const float* const row = &given[t * s.num_experts];
        std::vector<int32_t> order(static_cast<size_t>(s.num_experts));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return row[a] > row[b]; });
        double all = 0;
        double chosen = 0;
        for (int e = 0; e < s.num_experts; ++e) all += std::exp(static_cast<double>(row[e]));
        for (int j = 0; j < s.k; ++j) chosen += std::exp(static_cast<double>(row[order[static_cast<size_t>(j)]]));
        for (int j = 0; j < s.k; ++j) {
          const auto pair = static_cast<size_t>(t * s.k + j);
          ASSERT_EQ(routing.ids[pair], order[static_cast<size_t>(j)]) << "token " << t << ", choice " << j;
          const double expected = std::exp(static_cast<double>(row[routing.ids[pair]])) / (normalize ? chosen : all);
          ASSERT_NEAR(routing.weights[pair], expected, 1e-6 * expected + 1e-30);
        }
      }
    }
  }
}

TEST_P(ExpertsTest, TiesGoToTheLowerId) {
  const auto backend = MakeBackend();
  std::vector<float> logits = {1, 2, 2, 1, 2, 0};
  Routing routing(1, 5);
  backend->RouteTokens(View(logits, 1, 6), true, routing.experts());
  EXPECT_EQ(routing.ids, (std::vector<int32_t>{1, 2, 4, 0, 3}));
  EXPECT_EQ(routing.weights[0], routing.weights[2]);
}

TEST_P(ExpertsTest, RoutesByProbabilitiesThatUnderflow) {
  const auto backend = MakeBackend();
  std::vector<float> logits = {-300, -200, 0, -200};
  Routing routing(1, 3);
  backend->RouteTokens(View(logits, 1, 4), false, routing.experts());
  EXPECT_EQ(routing.ids, (std::vector<int32_t>{2, 0, 1})) << "all but one are 0, which is a tie";
  EXPECT_EQ(routing.weights, (std::vector<float>{1, 0, 0}));
}

TEST_P(ExpertsTest, LogitsThatAreNotFiniteStayInTheirRow) {
  const auto backend = MakeBackend();
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    std::vector<float> logits = {0, 1, 2, 3, 0, 1, bad, 3, 0, 1, 2, 3};
    Routing routing(3, 2);
    backend->RouteTokens(View(logits, 3, 4), true, routing.experts());
    for (const size_t t : {0u, 2u}) {
      EXPECT_EQ(routing.ids[2 * t], 3);
      EXPECT_EQ(routing.ids[2 * t + 1], 2);
    }
    EXPECT_NE(routing.ids[2], routing.ids[3]);
    EXPECT_TRUE(routing.ids[2] >= 0 && routing.ids[2] < 4 && routing.ids[3] >= 0 && routing.ids[3] < 4);
    EXPECT_TRUE(std::isnan(routing.weights[2]));
  }
}

TEST_P(ExpertsTest, GroupsByExpertThenToken) {
  const auto backend = MakeBackend();
  constexpr int kExperts = 7;
  for (const int64_t tokens : {1, 3, 200}) {
    for (const int k : {1, 3, 6}) {
      for (const ExpertRange here : {ExpertRange{0, kExperts}, ExpertRange{2, 3}, ExpertRange{5, 1}}) {
        Routing routing = RandomRouting(tokens, kExperts, k, static_cast<uint32_t>(tokens * k), /*unused=*/5);
        Grouping grouping(routing.Pairs(), here.count);
        std::vector<int64_t> load(static_cast<size_t>(here.count), 1000);
        backend->GroupByExpert(routing.experts(), here, grouping.groups(load.data()));
        std::vector<int32_t> tokens_in_order, begin = {0}, places(routing.Pairs(), -1);
        for (int e = here.first; e < here.first + here.count; ++e) {
          for (size_t pair = 0; pair < routing.Pairs(); ++pair) {
            if (routing.ids[pair] != e) continue;
            places[pair] = static_cast<int32_t>(tokens_in_order.size());
            tokens_in_order.push_back(static_cast<int32_t>(pair) / k);
          }
          begin.push_back(static_cast<int32_t>(tokens_in_order.size()));
          EXPECT_EQ(load[static_cast<size_t>(e - here.first)], 1000 + *begin.rbegin() - *(begin.rbegin() + 1));
        }
        EXPECT_EQ(grouping.begin, begin);
        EXPECT_EQ(grouping.places, places);
        grouping.tokens.resize(tokens_in_order.size());
        EXPECT_EQ(grouping.tokens, tokens_in_order);
      }
    }
  }
}

// The weights of some experts, [n, k] each, and the same as single weights.
struct Experts {
  Experts(Backend& backend, int count, int64_t n, int64_t k, DType dtype, bool with_bias) {
    std::vector<Weight> weights;
    for (int e = 0; e < count; ++e) {
      const auto seed = static_cast<uint32_t>(100 + 2 * e);
      const std::vector<float> w = RandomFloats(n * k, seed);
      const std::vector<float> bias = RandomFloats(with_bias ? n : 0, seed + 1);
      const HostMatrix matrix{w.data(), DType::kF32, n, k};
      weights.push_back(backend.MakeWeight({&matrix, 1}, bias, dtype).value());
      singles.push_back(backend.MakeWeight({&matrix, 1}, bias, dtype).value());
    }
    grouped = backend.MakeExpertWeights(std::move(weights)).value();
  }

  std::vector<Weight> singles;
  ExpertWeights grouped;
};

TEST_P(ExpertsTest, GroupedLinearIsTheLinearOfEachRow) {
  struct Shape {
    int64_t tokens;
    int num_experts, k;
    int64_t n, in;
  };
  const Shape shapes[] = {{1, 4, 1, 33, 20},  {1, 4, 4, 64, 16},  {5, 3, 2, 200, 31},
                          {64, 8, 2, 96, 70}, {300, 4, 4, 40, 9}, {20, 30, 1, 130, 520}};
  for (const int threads : {1, 3}) {
    const auto backend = MakeBackend(threads);
    for (const Shape& s : shapes) {
      for (const DType dtype : kWeightTypes) {
        SCOPED_TRACE(testing::Message() << s.tokens << " tokens, " << s.k << " of " << s.num_experts << ", type "
                                        << static_cast<int>(dtype));
        const bool with_bias = s.n % 2 == 0;
        const ExpertRange here{s.num_experts / 3, s.num_experts - s.num_experts / 3};
        const Experts experts(*backend, here.count, s.n, s.in, dtype, with_bias);
        Routing routing = RandomRouting(s.tokens, s.num_experts, s.k, 3, s.k < s.num_experts ? s.num_experts - 1 : -1);
        Grouping grouping(routing.Pairs(), here.count);
        backend->GroupByExpert(routing.experts(), here, grouping.groups());
        const auto pairs = static_cast<int64_t>(routing.Pairs());
        const int64_t places = grouping.begin.back();
        std::vector<float> x = RandomFloats(s.tokens * s.in, 4);
        std::vector<float> by_place(static_cast<size_t>(pairs * s.in), 1e30f);
        std::vector<float> out(static_cast<size_t>(pairs * s.n), -77.0f);
        std::vector<float> again(out);
        backend->GroupedLinear(View(x, s.tokens, s.in), grouping.tokens.data(), grouping.begin.data(), experts.grouped,
                               View(out, pairs, s.n));
        for (int64_t p = 0; p < places; ++p) std::copy_n(&x[grouping.tokens[p] * s.in], s.in, &by_place[p * s.in]);
        backend->GroupedLinear(View(by_place, pairs, s.in), nullptr, grouping.begin.data(), experts.grouped,
                               View(again, pairs, s.n));
        std::vector<float> expected(static_cast<size_t>(s.n));
        for (size_t e = 0; e < experts.singles.size(); ++e) {
          for (int64_t p = grouping.begin[e]; p < grouping.begin[e + 1]; ++p) {
            backend->Linear(View(by_place, pairs, s.in).Rows(p, 1), experts.singles[e], View(expected, 1, s.n));
            EXPECT_TRUE(SameBits(expected.data(), &out[p * s.n], s.n)) << "place " << p;
            EXPECT_TRUE(SameBits(expected.data(), &again[p * s.n], s.n)) << "place " << p << ", not gathered";
          }
        }
        EXPECT_EQ(std::count(out.begin(), out.end(), -77.0f), (pairs - places) * s.n) << "wrote behind the last place";
      }
    }
  }
}

TEST_P(ExpertsTest, GroupedLinearOfNoPlacesDoesNothing) {
  const auto backend = MakeBackend();
  const Experts experts(*backend, 2, 32, 8, DType::kF32, false);
  const int32_t begin[] = {0, 0, 0};
  const int32_t rows[] = {0};
  std::vector<float> x(8, 1.0f);
  std::vector<float> out(32, 5.0f);
  backend->GroupedLinear(View(x, 1, 8), rows, begin, experts.grouped, View(out, 1, 32));
  EXPECT_EQ(out, std::vector<float>(32, 5.0f));
}

TEST_P(ExpertsTest, CombineSumsByChoiceAndSkipsWhoIsElsewhere) {
  constexpr int kExperts = 6;
  const auto backend = MakeBackend();
  for (const int64_t width : {1, 17, 64, 1000}) {
    for (const int k : {1, 4}) {
      for (const ExpertRange here : {ExpertRange{0, kExperts}, ExpertRange{3, 2}}) {
        constexpr int64_t kTokens = 50;
        Routing routing = RandomRouting(kTokens, kExperts, k, 8);
        Grouping grouping(routing.Pairs(), here.count);
        backend->GroupByExpert(routing.experts(), here, grouping.groups());
        const auto pairs = static_cast<int64_t>(routing.Pairs());
        std::vector<float> x = RandomFloats(pairs * width, 9);
        // Behind the last place lies whatever an earlier step left there.
        std::fill(x.begin() + grouping.begin.back() * width, x.end(), std::nanf(""));
        std::vector<float> out(static_cast<size_t>(kTokens * width), -1.0f);
        backend->CombineExperts(View(x, pairs, width), routing.experts(), grouping.places.data(),
                                View(out, kTokens, width));
        for (int64_t t = 0; t < kTokens; ++t) {
          for (int64_t i = 0; i < width; ++i) {
            double expected = 0;
            for (int64_t pair = t * k; pair < (t + 1) * k; ++pair) {
              const int32_t place = grouping.places[pair];
              if (place >= 0) expected += static_cast<double>(routing.weights[pair]) * x[place * width + i];
            }
            ASSERT_NEAR(out[t * width + i], expected, 1e-5) << t << "," << i;
          }
        }
      }
    }
  }
}

TEST_P(ExpertsTest, AddGatedMatchesTheReference) {
  const auto backend = MakeBackend();
  for (const int64_t width : {1, 16, 75}) {
    std::vector<float> gate = {-1000, -2, 0, 0.5f, 1000};
    std::vector<float> x = RandomFloats(5 * width, 10);
    std::vector<float> out = RandomFloats(5 * width, 11);
    const std::vector<float> before = out;
    backend->AddGated(View(gate, 5, 1), View(x, 5, width), View(out, 5, width));
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t i = t * width; i < (t + 1) * width; ++i) {
        ASSERT_NEAR(out[i], before[i] + x[i] / (1 + std::exp(-static_cast<double>(gate[t]))), 1e-6);
      }
    }
  }
}

// All ops, one after the other, as a layer runs them.
std::vector<float> RunExperts(Backend& backend, Tensor x, Tensor logits, int k, const Experts& experts) {
  const auto num_experts = static_cast<int>(experts.singles.size());
  Routing routing(x.rows, k);
  Grouping grouping(routing.Pairs(), num_experts);
  std::vector<float> scratch_logits(logits.Row<float>(0), logits.Row<float>(logits.rows));
  const auto pairs = static_cast<int64_t>(routing.Pairs());
  const int64_t n = experts.singles[0].out_features;
  std::vector<float> by_place(static_cast<size_t>(pairs * n));
  std::vector<float> out(static_cast<size_t>(x.rows * n));
  backend.RouteTokens(View(scratch_logits, x.rows, num_experts), true, routing.experts());
  backend.GroupByExpert(routing.experts(), {0, num_experts}, grouping.groups());
  backend.GroupedLinear(x, grouping.tokens.data(), grouping.begin.data(), experts.grouped, View(by_place, pairs, n));
  backend.CombineExperts(View(by_place, pairs, n), routing.experts(), grouping.places.data(), View(out, x.rows, n));
  return out;
}

TEST_P(ExpertsTest, ATokenIsTheSameAloneAndInAnyCompany) {
  constexpr int64_t kTokens = 70;
  constexpr int64_t kIn = 600;  // more than one block of k
  constexpr int64_t kN = 80;
  constexpr int kExperts = 5;
  std::vector<float> x = RandomFloats(kTokens * kIn, 12);
  std::vector<float> logits = RandomFloats(kTokens * kExperts, 13);
  for (const DType dtype : kWeightTypes) {
    for (const int k : {1, 2, kExperts}) {
      const auto one = MakeBackend(1);
      const Experts experts(*one, kExperts, kN, kIn, dtype, false);
      std::vector<float> alone;
      for (int64_t t = 0; t < kTokens; ++t) {
        const std::vector<float> row =
            RunExperts(*one, View(x, kTokens, kIn).Rows(t, 1), View(logits, kTokens, kExperts).Rows(t, 1), k, experts);
        alone.insert(alone.end(), row.begin(), row.end());
      }
      for (const int threads : {1, 2, 3}) {
        const auto backend = MakeBackend(threads);
        for (const int64_t tokens : {2, 7, 70}) {
          const std::vector<float> out =
              RunExperts(*backend, View(x, tokens, kIn), View(logits, tokens, kExperts), k, experts);
          EXPECT_TRUE(SameBits(out.data(), alone.data(), tokens * kN))
              << tokens << " tokens, " << threads << " threads, k " << k << ", type " << static_cast<int>(dtype);
        }
      }
    }
  }
}

INSTANTIATE_FOR_EACH_ISA(ExpertsTest);

TEST(ExpertWeightsTest, RefusesWhatIsNotAlike) {
  cpu::CpuBackend backend(1);
  const std::vector<float> w(12, 1.0f);
  const float bias[] = {1, 2, 3};
  const auto make = [&](int64_t rows, DType dtype, bool with_bias) {
    const HostMatrix matrix{w.data(), DType::kF32, rows, 12 / rows};
    const auto use = with_bias ? absl::MakeConstSpan(bias) : absl::Span<const float>();
    return backend.MakeWeight({&matrix, 1}, use, dtype).value();
  };
  const auto code = [&](Weight second) {
    std::vector<Weight> experts;
    experts.push_back(make(3, DType::kF32, false));
    experts.push_back(std::move(second));
    return backend.MakeExpertWeights(std::move(experts)).status().code();
  };
  EXPECT_EQ(code(make(3, DType::kF32, false)), absl::StatusCode::kOk);
  EXPECT_EQ(code(make(4, DType::kF32, false)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(make(3, DType::kI8, false)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(make(3, DType::kF32, true)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend.MakeExpertWeights({}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace weft
