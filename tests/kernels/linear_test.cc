#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/half.h"
#include "tests/kernels/backend_fixture.h"

namespace weft {
namespace {

constexpr DType kWeightTypes[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kI8};

float Stored(float w, DType dtype) {
  if (dtype == DType::kBF16) return BF16ToF32(F32ToBF16(w));
  if (dtype == DType::kF16) return F16ToF32(F32ToF16(w));
  return w;
}

// One row or column as int8: the scale, and the values it stands for.
struct Quantized {
  double scale = 0;
  std::vector<double> q;
};

Quantized Quantize(const float* x, int64_t n) {
  float max = 0;
  for (int64_t i = 0; i < n; ++i) max = std::max(max, std::fabs(x[i]));
  Quantized result{max / 127.0f, {}};
  for (int64_t i = 0; i < n; ++i) result.q.push_back(max == 0 ? 0 : std::nearbyint(x[i] / max * 127.0f));
  return result;
}

// Entry (row, column) of x W^T + b as exactly as doubles allow, W and x rounded as `dtype` has them.
double Reference(const float* x, const float* w, float bias, int64_t k, DType dtype) {
  double sum = 0;
  if (dtype == DType::kI8) {
    const Quantized qx = Quantize(x, k);
    const Quantized qw = Quantize(w, k);
    for (int64_t i = 0; i < k; ++i) sum += qx.q[static_cast<size_t>(i)] * qw.q[static_cast<size_t>(i)];
    return sum * qx.scale * qw.scale + bias;
  }
  for (int64_t i = 0; i < k; ++i) sum += static_cast<double>(x[i]) * Stored(w[i], dtype);
  return sum + bias;
}

class LinearTest : public IsaTest {};

TEST_P(LinearTest, MatchesTheReferenceOnOddShapes) {
  struct Shape {
    int64_t rows, n, k;
  };
  const Shape shapes[] = {{1, 1, 1},   {1, 33, 5},  {2, 16, 64},   {3, 95, 31},  {5, 64, 1023},
                          {7, 129, 8}, {13, 48, 2}, {19, 65, 600}, {64, 96, 130}};
  const auto backend = MakeBackend();
  uint32_t seed = 0;
  for (const Shape& s : shapes) {
    for (DType dtype : kWeightTypes) {
      for (bool with_bias : {false, true}) {
        SCOPED_TRACE(testing::Message() << s.rows << "x" << s.n << "x" << s.k << " type " << static_cast<int>(dtype));
        const std::vector<float> w = RandomFloats(s.n * s.k, ++seed);
        std::vector<float> x = RandomFloats(s.rows * s.k, ++seed);
        const std::vector<float> bias = RandomFloats(with_bias ? s.n : 0, ++seed);
        const HostMatrix matrix{w.data(), DType::kF32, s.n, s.k};
        const Weight weight = backend->MakeWeight({&matrix, 1}, bias, dtype).value();
        std::vector<float> out(static_cast<size_t>(s.rows * s.n + 1), -77.0f);
        backend->Linear(View(x, s.rows, s.k), weight, View(out, s.rows, s.n));
        const double tolerance = 2e-6 * std::sqrt(static_cast<double>(s.k)) + 1e-6;
        for (int64_t r = 0; r < s.rows; ++r) {
          for (int64_t c = 0; c < s.n; ++c) {
            const double expected = Reference(&x[r * s.k], &w[c * s.k], with_bias ? bias[c] : 0, s.k, dtype);
            ASSERT_NEAR(out[r * s.n + c], expected, tolerance * (1 + std::fabs(expected))) << r << "," << c;
          }
        }
        EXPECT_EQ(out.back(), -77.0f) << "wrote behind the last column";
      }
    }
  }
}

TEST_P(LinearTest, ARowIsTheSameAloneAndInAnyCompany) {
  constexpr int64_t kN = 200;
  constexpr int64_t kK = 1100;  // more than one block of k
  constexpr int64_t kRows = 64;
  const std::vector<float> w = RandomFloats(kN * kK, 1);
  std::vector<float> x = RandomFloats(kRows * kK, 2);
  const std::vector<float> bias = RandomFloats(kN, 3);
  const HostMatrix matrix{w.data(), DType::kF32, kN, kK};
  for (DType dtype : kWeightTypes) {
    std::vector<float> alone(kRows * kN);
    const auto one_thread = MakeBackend(1);
    const Weight weight = one_thread->MakeWeight({&matrix, 1}, bias, dtype).value();
    for (int64_t r = 0; r < kRows; ++r) {
      one_thread->Linear(View(x, kRows, kK).Rows(r, 1), weight, View(alone, kRows, kN).Rows(r, 1));
    }
    for (int threads : {1, 2, 3}) {
      const auto backend = MakeBackend(threads);
      for (int64_t rows : {2, 3, 5, 6, 7, 13, 63, 64}) {
        std::vector<float> out(static_cast<size_t>(rows * kN));
        backend->Linear(View(x, rows, kK), weight, View(out, rows, kN));
        EXPECT_TRUE(SameBits(out.data(), alone.data(), rows * kN))
            << rows << " rows, " << threads << " threads, type " << static_cast<int>(dtype);
      }
    }
  }
}

TEST_P(LinearTest, Int8IsTheSameOnEveryInstructionSet) {
  constexpr int64_t kN = 70;
  constexpr int64_t kK = 515;
  const std::vector<float> w = RandomFloats(kN * kK, 4);
  std::vector<float> x = RandomFloats(9 * kK, 5);
  const std::vector<float> bias = RandomFloats(kN, 6);
  const HostMatrix matrix{w.data(), DType::kF32, kN, kK};
  const auto run = [&](Backend& backend) {
    const Weight weight = backend.MakeWeight({&matrix, 1}, bias, DType::kI8).value();
    std::vector<float> out(9 * kN);
    backend.Linear(View(x, 9, kK), weight, View(out, 9, kN));
    return out;
  };
  cpu::CpuBackend portable(1, cpu::Isa::kPortable);
  const std::vector<float> expected = run(portable);
  const std::vector<float> actual = run(*MakeBackend());
  EXPECT_TRUE(SameBits(expected.data(), actual.data(), 9 * kN));
}

TEST_P(LinearTest, Int8KeepsExtremesExact) {
  // The largest sums there are: every product 127 * 127, of one sign or alternating.
  constexpr int64_t kK = 4099;
  std::vector<float> x(kK, 1.0f);
  std::vector<float> w(2 * kK, -1.0f);
  for (int64_t i = 0; i < kK; ++i) w[kK + i] = i % 2 == 0 ? 1.0f : -1.0f;
  const HostMatrix matrix{w.data(), DType::kF32, 2, kK};
  const auto backend = MakeBackend();
  const Weight weight = backend->MakeWeight({&matrix, 1}, {}, DType::kI8).value();
  std::vector<float> out(2);
  backend->Linear(View(x, 1, kK), weight, View(out, 1, 2));
  EXPECT_NEAR(out[0], -kK, 1e-3);
  EXPECT_NEAR(out[1], 1, 1e-5);
}

TEST_P(LinearTest, ANonFiniteInputPoisonsItsRowAlone) {
  constexpr int64_t kN = 40;
  constexpr int64_t kK = 50;
  const std::vector<float> w = RandomFloats(kN * kK, 7);
  const HostMatrix matrix{w.data(), DType::kF32, kN, kK};
  for (DType dtype : kWeightTypes) {
    for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      const auto backend = MakeBackend();
      const Weight weight = backend->MakeWeight({&matrix, 1}, {}, dtype).value();
      std::vector<float> x = RandomFloats(3 * kK, 8);
      x[kK + 49] = bad;
      std::vector<float> out(3 * kN);
      backend->Linear(View(x, 3, kK), weight, View(out, 3, kN));
      for (int64_t c = 0; c < kN; ++c) {
        EXPECT_TRUE(std::isfinite(out[c]));
        EXPECT_FALSE(std::isfinite(out[kN + c]));
        EXPECT_TRUE(std::isfinite(out[2 * kN + c]));
      }
    }
  }
}

TEST_P(LinearTest, AZeroRowGivesTheBias) {
  const std::vector<float> w = RandomFloats(10 * 20, 9);
  const std::vector<float> bias = RandomFloats(10, 10);
  const HostMatrix matrix{w.data(), DType::kF32, 10, 20};
  const auto backend = MakeBackend();
  for (DType dtype : kWeightTypes) {
    const Weight weight = backend->MakeWeight({&matrix, 1}, bias, dtype).value();
    std::vector<float> x(20, 0.0f);
    std::vector<float> out(10);
    backend->Linear(View(x, 1, 20), weight, View(out, 1, 10));
    EXPECT_EQ(out, bias);
  }
}

TEST_P(LinearTest, StridedViewsReadAndWriteOnlyTheirColumns) {
  constexpr int64_t kN = 20;
  constexpr int64_t kK = 24;
  const std::vector<float> w = RandomFloats(kN * kK, 11);
  const HostMatrix matrix{w.data(), DType::kF32, kN, kK};
  const auto backend = MakeBackend();
  for (DType dtype : kWeightTypes) {
    const Weight weight = backend->MakeWeight({&matrix, 1}, {}, dtype).value();
    std::vector<float> dense = RandomFloats(4 * kK, 12);
    std::vector<float> wide(4 * (kK + 7), 1e30f);
    for (int64_t r = 0; r < 4; ++r) std::copy_n(&dense[r * kK], kK, &wide[r * (kK + 7)]);
    std::vector<float> expected(4 * kN);
    std::vector<float> out(4 * (kN + 3), 5.0f);
    backend->Linear(View(dense, 4, kK), weight, View(expected, 4, kN));
    backend->Linear({wide.data(), DType::kF32, 4, kK, kK + 7}, weight, {out.data(), DType::kF32, 4, kN, kN + 3});
    for (int64_t r = 0; r < 4; ++r) {
      EXPECT_TRUE(SameBits(&out[r * (kN + 3)], &expected[r * kN], kN));
      for (int64_t c = kN; c < kN + 3; ++c) EXPECT_EQ(out[r * (kN + 3) + c], 5.0f);
    }
  }
}

INSTANTIATE_FOR_EACH_ISA(LinearTest);

TEST(WeightTest, PartsStackAndConvert) {
  cpu::CpuBackend backend(2);
  const std::vector<float> top = RandomFloats(3 * 6, 13);
  std::vector<uint16_t> middle;
  std::vector<uint16_t> bottom;
  for (float f : RandomFloats(40 * 6, 14)) middle.push_back(F32ToBF16(f));
  for (float f : RandomFloats(2 * 6, 15)) bottom.push_back(F32ToF16(f));
  const HostMatrix parts[] = {
      {top.data(), DType::kF32, 3, 6}, {middle.data(), DType::kBF16, 40, 6}, {bottom.data(), DType::kF16, 2, 6}};
  const Weight weight = backend.MakeWeight(parts, {}, DType::kF32).value();
  ASSERT_EQ(weight.out_features, 45);
  ASSERT_EQ(weight.in_features, 6);
  const int32_t ids[] = {0, 2, 3, 42, 43, 44};
  std::vector<float> out(6 * 6);
  backend.Embed(ids, 0, weight, View(out, 6, 6));
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(out[i], top[i]);
    EXPECT_EQ(out[6 + i], top[12 + i]);
    EXPECT_EQ(out[12 + i], BF16ToF32(middle[i]));
    EXPECT_EQ(out[18 + i], BF16ToF32(middle[39 * 6 + i]));
    EXPECT_EQ(out[24 + i], F16ToF32(bottom[i]));
    EXPECT_EQ(out[30 + i], F16ToF32(bottom[6 + i]));
  }
}

TEST(WeightTest, EmbedReadsEveryType) {
  cpu::CpuBackend backend(2);
  constexpr int64_t kN = 50;
  constexpr int64_t kK = 37;
  const std::vector<float> w = RandomFloats(kN * kK, 16);
  const HostMatrix matrix{w.data(), DType::kF32, kN, kK};
  const std::vector<int32_t> ids = {49, 0, 31, 32, 32};
  for (DType dtype : kWeightTypes) {
    const Weight weight = backend.MakeWeight({&matrix, 1}, {}, dtype).value();
    std::vector<float> out(ids.size() * kK);
    backend.Embed(ids.data(), 0, weight, View(out, static_cast<int64_t>(ids.size()), kK));
    for (size_t t = 0; t < ids.size(); ++t) {
      const float* const row = &w[ids[t] * kK];
      const Quantized quantized = Quantize(row, kK);
      for (int64_t i = 0; i < kK; ++i) {
        const double expected = dtype == DType::kI8 ? quantized.scale * quantized.q[i] : Stored(row[i], dtype);
        EXPECT_FLOAT_EQ(out[t * kK + i], static_cast<float>(expected));
      }
    }
  }
}

TEST(WeightTest, RefusesWhatItCannotStore) {
  cpu::CpuBackend backend(2);
  std::vector<float> w(8, 1.0f);
  const HostMatrix good{w.data(), DType::kF32, 2, 4};
  const HostMatrix narrow{w.data(), DType::kF32, 2, 3};
  const HostMatrix bytes{w.data(), DType::kI8, 2, 4};
  const HostMatrix mixed[] = {good, narrow};
  const float bias[] = {1, 2, 3};
  const auto code = [](const absl::StatusOr<Weight>& weight) { return weight.status().code(); };
  EXPECT_EQ(code(backend.MakeWeight({}, {}, DType::kF32)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(backend.MakeWeight(mixed, {}, DType::kF32)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(backend.MakeWeight({&bytes, 1}, {}, DType::kF32)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(backend.MakeWeight({&good, 1}, bias, DType::kF32)), absl::StatusCode::kInvalidArgument);
  w[5] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(code(backend.MakeWeight({&good, 1}, {}, DType::kI8)), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(backend.MakeWeight({&good, 1}, {}, DType::kF32).ok());
}

}  // namespace
}  // namespace weft
