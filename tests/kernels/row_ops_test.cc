// Norm, activation, gather, and the exponential under them.
#include <sys/mman.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/kernels/backend_fixture.h"

namespace weft {
namespace {

constexpr int64_t kWidths[] = {1, 15, 16, 17, 63, 64, 65, 100, 576, 1000};

class RowOpsTest : public IsaTest {};

std::vector<double> ReferenceRmsNorm(const float* x, const std::vector<float>& weight, double eps) {
  double square = 0;
  const size_t n = weight.size();
  for (size_t i = 0; i < n; ++i) square += static_cast<double>(x[i]) * x[i];
  std::vector<double> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = x[i] * weight[i] / std::sqrt(square / static_cast<double>(n) + eps);
  return out;
}

TEST_P(RowOpsTest, RmsNormMatchesTheReference) {
  const auto backend = MakeBackend();
  for (int64_t n : kWidths) {
    std::vector<float> x = RandomFloats(3 * n, 1);
    const std::vector<float> weight = RandomFloats(n, 2);
    std::vector<float> out(static_cast<size_t>(3 * n));
    backend->RmsNorm(View(x, 3, n), weight.data(), 1e-5f, View(out, 3, n));
    for (int64_t r = 0; r < 3; ++r) {
      const std::vector<double> expected = ReferenceRmsNorm(&x[r * n], weight, 1e-5);
      for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(out[r * n + i], expected[i], 1e-6 * (1 + std::fabs(expected[i])));
    }
  }
}

TEST_P(RowOpsTest, AddRmsNormAddsThenNorms) {
  const auto backend = MakeBackend();
  for (int64_t n : kWidths) {
    std::vector<float> x = RandomFloats(2 * n, 3);
    std::vector<float> delta = RandomFloats(2 * n, 4);
    const std::vector<float> weight = RandomFloats(n, 5);
    std::vector<float> sum(x);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += delta[i];
    std::vector<float> expected(sum.size());
    backend->RmsNorm(View(sum, 2, n), weight.data(), 1e-6f, View(expected, 2, n));
    std::vector<float> out(sum.size());
    backend->AddRmsNorm(View(x, 2, n), View(delta, 2, n), weight.data(), 1e-6f, View(out, 2, n));
    EXPECT_EQ(x, sum);
    EXPECT_EQ(out, expected);
  }
}

TEST_P(RowOpsTest, SwiGluMatchesTheReference) {
  const auto backend = MakeBackend();
  for (int64_t n : kWidths) {
    std::vector<float> gate_up = RandomFloats(2 * 2 * n, 6, 4.0f);
    std::vector<float> out(static_cast<size_t>(2 * n));
    backend->SwiGlu(View(gate_up, 2, 2 * n), View(out, 2, n));
    for (int64_t r = 0; r < 2; ++r) {
      for (int64_t i = 0; i < n; ++i) {
        const double gate = gate_up[r * 2 * n + i];
        const double expected = gate / (1 + std::exp(-gate)) * gate_up[r * 2 * n + n + i];
        ASSERT_NEAR(out[r * n + i], expected, 5e-7 * std::fabs(expected) + 1e-30);
      }
    }
  }
}

TEST_P(RowOpsTest, SwiGluHoldsAtTheEnds) {
  const auto backend = MakeBackend();
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> gate_up = {-1000, 1000, 0, std::nanf(""), -inf, 1, 2, 3, 1, 1};
  std::vector<float> out(5);
  backend->SwiGlu(View(gate_up, 1, 10), View(out, 1, 5));
  EXPECT_NEAR(out[0], 0, 1e-30);
  EXPECT_EQ(out[1], 2000);
  EXPECT_EQ(out[2], 0);
  EXPECT_TRUE(std::isnan(out[3]));
}

TEST_P(RowOpsTest, RowsAreTheSameAloneAndInAnyCompany) {
  constexpr int64_t kRows = 64;
  constexpr int64_t kN = 1000;
  std::vector<float> x = RandomFloats(kRows * 2 * kN, 7);
  const std::vector<float> weight = RandomFloats(kN, 8);
  const auto one = MakeBackend(1);
  std::vector<float> norm_alone(kRows * kN);
  std::vector<float> glu_alone(kRows * kN);
  for (int64_t r = 0; r < kRows; ++r) {
    one->RmsNorm(View(x, kRows, kN).Rows(r, 1), weight.data(), 1e-5f, View(norm_alone, kRows, kN).Rows(r, 1));
    one->SwiGlu(View(x, kRows, 2 * kN).Rows(r, 1), View(glu_alone, kRows, kN).Rows(r, 1));
  }
  for (int threads : {1, 2, 3}) {
    const auto backend = MakeBackend(threads);
    std::vector<float> out(kRows * kN);
    backend->RmsNorm(View(x, kRows, kN), weight.data(), 1e-5f, View(out, kRows, kN));
    EXPECT_TRUE(SameBits(out.data(), norm_alone.data(), kRows * kN));
    backend->SwiGlu(View(x, kRows, 2 * kN), View(out, kRows, kN));
    EXPECT_TRUE(SameBits(out.data(), glu_alone.data(), kRows * kN));
  }
}

TEST_P(RowOpsTest, GatherRowsPicksRows) {
  const auto backend = MakeBackend();
  std::vector<float> x = RandomFloats(5 * 33, 9);
  const int32_t rows[] = {4, 0, 4};
  std::vector<float> out(3 * 33);
  backend->GatherRows(View(x, 5, 33), rows, View(out, 3, 33));
  EXPECT_TRUE(SameBits(&out[0], &x[4 * 33], 33));
  EXPECT_TRUE(SameBits(&out[33], &x[0], 33));
  EXPECT_TRUE(SameBits(&out[66], &x[4 * 33], 33));
}

TEST_P(RowOpsTest, ExpIsAccurateOverItsRange) {
  const cpu::Kernels& kernels = cpu::KernelsFor(GetParam());
  std::vector<float> x;
  for (float v = -87.2f; v <= 0; v += 0.00137f) x.push_back(v);
  std::vector<float> out(x.size());
  const double sum = kernels.exp_weights(x.data(), static_cast<int64_t>(x.size()), 0, 1, out.data());
  double expected_sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(static_cast<double>(x[i]));
    expected_sum += expected;
    ASSERT_NEAR(out[i] / expected, 1, 2e-7) << x[i];
  }
  EXPECT_NEAR(sum / expected_sum, 1, 1e-6);
  const float edges[] = {0, -88, -1e30f, -std::numeric_limits<float>::infinity(), std::nanf("")};
  float edge_out[5];
  kernels.exp_weights(edges, 5, 0, 1, edge_out);
  EXPECT_EQ(edge_out[0], 1);
  EXPECT_EQ(edge_out[1], 0);
  EXPECT_EQ(edge_out[2], 0);
  EXPECT_EQ(edge_out[3], 0);
  EXPECT_TRUE(std::isnan(edge_out[4]));
}

INSTANTIATE_FOR_EACH_ISA(RowOpsTest);

TEST(AllocateTest, IsZeroedAndAligned) {
  cpu::CpuBackend backend(1);
  for (size_t bytes : {size_t{1}, size_t{100}, size_t{5} << 20}) {
    const Buffer buffer = backend.Allocate(bytes).value();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0);
    EXPECT_EQ(buffer.bytes(), bytes);
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(buffer.As<char>()[i], 0);
  }
}

// A page that the system first gives when a step comes there costs that step milliseconds.
TEST(AllocateTest, LeavesNoPageToTheFirstStep) {
  cpu::CpuBackend backend(2);
  const Buffer buffer = backend.Allocate((size_t{5} << 20) + 1).value();
  std::vector<unsigned char> is_there((buffer.bytes() + 4095) / 4096);
  ASSERT_EQ(mincore(buffer.data(), buffer.bytes(), is_there.data()), 0);
  for (const unsigned char page : is_there) ASSERT_EQ(page & 1, 1);
}

TEST(AllocateTest, SaysWhenThereIsNoMemory) {
  cpu::CpuBackend backend(1);
  for (size_t bytes : {size_t{1} << 60, SIZE_MAX, SIZE_MAX / 2}) {
    const absl::Status status = backend.Allocate(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(status.message().find(std::to_string(bytes)), std::string::npos);
  }
}

}  // namespace
}  // namespace weft
