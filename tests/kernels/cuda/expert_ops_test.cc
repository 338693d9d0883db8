// The ops of a mixture of experts on a CUDA device beside the CPU backend's.
#include <algorithm>
#include <utility>
#include <vector>

#include "tests/kernels/cuda/ops_fixture.h"

namespace weft {
namespace {

struct ExpertCase {
  int64_t num_tokens;
  int num_experts, k;
  ExpertRange here;
};
constexpr ExpertCase kCases[] = {
    {1, 8, 2, {0, 8}}, {13, 8, 2, {2, 3}}, {20, 20, 4, {0, 20}}, {5, 3, 3, {1, 1}}, {0, 4, 2, {0, 4}}};

class ExpertOpsTest : public OpsTest {
 protected:
  // Of one side: the host's, or the device's.
  struct Routed {
    TokenExperts experts;
    ExpertGroups groups;
  };

  static std::vector<HostMatrix> MatricesOf(const std::vector<float>& values, int count, int64_t rows, int64_t cols) {
    std::vector<HostMatrix> matrices;
    for (int i = 0; i < count; ++i) matrices.push_back({values.data() + i * rows * cols, DType::kF32, rows, cols});
    return matrices;
  }

  static ExpertWeights WeightsOf(Backend& backend, const std::vector<HostMatrix>& matrices, DType dtype) {
    std::vector<Weight> experts;
    for (const HostMatrix& matrix : matrices) experts.push_back(*backend.MakeWeight({&matrix, 1}, {}, dtype));
    return *backend.MakeExpertWeights(std::move(experts));
  }
};

TEST_P(ExpertOpsTest, MatchTheCpu) {
  for (const ExpertCase& c : kCases) {
    const auto pairs = static_cast<size_t>(c.num_tokens * c.k);
    const auto count = static_cast<size_t>(c.here.count);
    constexpr int64_t kIn = 24, kOut = 18;
    for (const bool normalize : {false, true}) {
      Twin logits = RandomFloat(c.num_tokens, c.num_experts, 1);
      std::vector<int32_t> ids(pairs, -7), begin(count + 1, -7), tokens(pairs, -7), places(pairs, -7);
      std::vector<int64_t> load(count, 5);
      std::vector<float> weights(pairs);
      const DeviceArray<int32_t> d_ids(*device_, ids), d_begin(*device_, begin), d_tokens(*device_, tokens),
          d_places(*device_, places);
      const DeviceArray<int64_t> d_load(*device_, load);
      Twin d_weights = Twin::Poison(*device_, DType::kF32, 1, c.num_tokens * c.k);
      const Routed host{{ids.data(), weights.data(), c.num_tokens, c.k},
                        {begin.data(), tokens.data(), places.data(), load.data()}};
      const Routed device{{d_ids.data(), d_weights.device().Row<float>(0), c.num_tokens, c.k},
                          {d_begin.data(), d_tokens.data(), d_places.data(), d_load.data()}};
      device_->RouteTokens(logits.device(), normalize, device.experts);
      device_->GroupByExpert(device.experts, c.here, device.groups);
      cpu_.RouteTokens(logits.cpu(), normalize, host.experts);
      cpu_.GroupByExpert(host.experts, c.here, host.groups);
      ASSERT_EQ(d_ids.FromDevice(), ids);
      const std::vector<float> seen = d_weights.FromDevice();
      for (size_t i = 0; i < pairs; ++i) ASSERT_NEAR(seen[i], weights[i], 2e-6) << i;
      ASSERT_EQ(d_begin.FromDevice(), begin);
      ASSERT_EQ(d_places.FromDevice(), places);
      ASSERT_EQ(d_load.FromDevice(), load);
      const std::vector<int32_t> seen_tokens = d_tokens.FromDevice();
      ASSERT_TRUE(std::equal(seen_tokens.begin(), seen_tokens.begin() + begin.back(), tokens.begin()));

      for (const DType dtype : {Activations(), DType::kI8}) {
        const std::vector<float> values = RandomFloats(c.here.count * kOut * kIn, 3);
        const auto matrices = MatricesOf(values, c.here.count, kOut, kIn);
        const ExpertWeights d_experts = WeightsOf(*device_, matrices, dtype),
                            experts = WeightsOf(cpu_, matrices, dtype);
        Twin x = Random(c.num_tokens, kIn, 4),
             all(*device_, Activations(), static_cast<int64_t>(pairs), kOut, std::vector<float>(pairs * kOut));
        device_->GroupedLinear(x.device(), device.groups.tokens, device.groups.begin, d_experts, all.device());
        cpu_.GroupedLinear(x.cpu(), host.groups.tokens, host.groups.begin, experts, all.cpu());
        all.ExpectNear(Ulp());

        Twin placed = Random(static_cast<int64_t>(pairs), kOut, 5), sum = Poison(c.num_tokens, kOut);
        device_->CombineExperts(placed.device(), device.experts, device.groups.places, sum.device());
        cpu_.CombineExperts(placed.cpu(), host.experts, host.groups.places, sum.cpu());
        sum.ExpectNear(Ulp() + 4e-6);
      }
    }
  }
}

// Whatever comes, ids are experts.
TEST_P(ExpertOpsTest, RoutesOfNaNAreValid) {
  std::vector<float> values(3 * 40, NAN);
  values[45] = 1;
  std::fill(values.begin() + 80, values.end(), 2.0f);  // all alike: the lowest ids win
  Twin logits(*device_, DType::kF32, 3, 40, values);
  const DeviceArray<int32_t> ids(*device_, std::vector<int32_t>(3 * 4, -1));
  Twin weights = Twin::Poison(*device_, DType::kF32, 3, 4);
  device_->RouteTokens(logits.device(), true, {ids.data(), weights.device().Row<float>(0), 3, 4});
  const std::vector<int32_t> seen = ids.FromDevice();
  for (size_t token = 0; token < 3; ++token) {
    std::vector<int32_t> own(seen.begin() + static_cast<int64_t>(token) * 4,
                             seen.begin() + static_cast<int64_t>(token + 1) * 4);
    std::sort(own.begin(), own.end());
    EXPECT_GE(own.front(), 0);
    EXPECT_LT(own.back(), 40);
    EXPECT_EQ(std::unique(own.begin(), own.end()), own.end());
  }
  EXPECT_EQ(std::vector<int32_t>(seen.begin() + 8, seen.end()), (std::vector<int32_t>{0, 1, 2, 3}));
}

INSTANTIATE_FOR_EACH_DTYPE_AND_ORDER(ExpertOpsTest);

}  // namespace
}  // namespace weft
