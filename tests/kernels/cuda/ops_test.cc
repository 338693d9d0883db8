// Every op of a CUDA device beside the CPU backend's: on the same inputs, which both hold exactly, with outputs that
// begin as NaN, for each type of activations and each order of threads.
#include <algorithm>
#include <tuple>
#include <vector>

#include "tests/kernels/cuda/ops_fixture.h"

namespace weft {
namespace {

struct Shape {
  int64_t rows, cols;
};
constexpr Shape kShapes[] = {{1, 1}, {3, 17}, {2, 64}, {5, 100}, {1, 1030}, {1, 16384}, {0, 8}};

TEST_P(OpsTest, RmsNorm) {
  for (const Shape& shape : kShapes) {
    Twin x = RandomFloat(shape.rows, shape.cols, 1), out = Poison(shape.rows, shape.cols);
    Twin weight = RandomFloat(1, shape.cols, 2);
    device_->RmsNorm(x.device(), weight.device().Row<float>(0), 1e-5f, out.device());
    cpu_.RmsNorm(x.cpu(), weight.cpu().Row<float>(0), 1e-5f, out.cpu());
    out.ExpectNear(Ulp());
  }
}

TEST_P(OpsTest, AddRmsNorm) {
  for (const Shape& shape : kShapes) {
    Twin x = RandomFloat(shape.rows, shape.cols, 1), delta = Random(shape.rows, shape.cols, 2);
    Twin weight = RandomFloat(1, shape.cols, 3), out = Poison(shape.rows, shape.cols);
    device_->AddRmsNorm(x.device(), delta.device(), weight.device().Row<float>(0), 1e-5f, out.device());
    cpu_.AddRmsNorm(x.cpu(), delta.cpu(), weight.cpu().Row<float>(0), 1e-5f, out.cpu());
    x.ExpectNear(0);
    out.ExpectNear(Ulp());
  }
}

TEST_P(OpsTest, Add) {
  for (const Shape& shape : kShapes) {
    Twin x = RandomFloat(shape.rows, shape.cols, 1), delta = Random(shape.rows, shape.cols, 2);
    device_->Add(x.device(), delta.device());
    cpu_.Add(x.cpu(), delta.cpu());
    x.ExpectNear(0);
  }
}

TEST_P(OpsTest, SwiGlu) {
  for (const Shape& shape : kShapes) {
    Twin gate_up = Random(shape.rows, 2 * shape.cols, 1), out = Poison(shape.rows, shape.cols);
    device_->SwiGlu(gate_up.device(), out.device());
    cpu_.SwiGlu(gate_up.cpu(), out.cpu());
    out.ExpectNear(Ulp());
  }
}

TEST_P(OpsTest, GatherRows) {
  for (const int64_t cols : {1, 33, 64}) {
    Twin x = Random(5, cols, 1), out = Poison(3, cols);
    const std::vector<int32_t> rows = {4, 0, 4};
    const DeviceArray<int32_t> device_rows(*device_, rows);
    device_->GatherRows(x.device(), device_rows.data(), out.device());
    cpu_.GatherRows(x.cpu(), rows.data(), out.cpu());
    out.ExpectNear(0);
  }
}

TEST_P(OpsTest, ScatterPairs) {
  for (const int count : {0, 1, 300}) {
    std::vector<int32_t> target(500, -1), pairs;
    for (int i = 0; i < count; ++i) pairs.insert(pairs.end(), {i * 7 % 500, i});
    const DeviceArray<int32_t> device_target(*device_, target), device_pairs(*device_, pairs);
    device_->ScatterPairs(device_pairs.data(), count, device_target.data());
    cpu_.ScatterPairs(pairs.data(), count, target.data());
    EXPECT_EQ(device_target.FromDevice(), target);
  }
}

TEST_P(OpsTest, TakeInts) {
  const std::vector<int32_t> from = {10, 11, 12, 13};
  std::vector<int32_t> places, out;
  for (int i = 0; i < 200; ++i) {
    places.push_back(i % 5 - 1);
    out.push_back(1000 + i);
  }
  const DeviceArray<int32_t> device_from(*device_, from), device_places(*device_, places), device_out(*device_, out);
  device_->TakeInts(device_from.data(), device_places.data(), 200, device_out.data());
  cpu_.TakeInts(from.data(), places.data(), 200, out.data());
  EXPECT_EQ(device_out.FromDevice(), out);
  EXPECT_EQ(out[0], 1000) << "what nobody takes stays";
}

TEST_P(OpsTest, AddGated) {
  for (const Shape& shape : kShapes) {
    Twin gate = Random(shape.rows, 1, 1), x = Random(shape.rows, shape.cols, 2),
         out = Random(shape.rows, shape.cols, 3);
    device_->AddGated(gate.device(), x.device(), out.device());
    cpu_.AddGated(gate.cpu(), x.cpu(), out.cpu());
    out.ExpectNear(Ulp());
  }
}

TEST_P(OpsTest, Embed) {
  const std::vector<float> table = RandomFloats(7 * 20, 1);
  const std::vector<int32_t> tokens = {3, 9, 2, 10, 8};  // the table begins with token 3
  const DeviceArray<int32_t> device_tokens(*device_, tokens);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kI8}) {
    const HostMatrix part{table.data(), DType::kF32, 7, 20};
    const Weight weight = *device_->MakeWeight({&part, 1}, {}, dtype),
                 cpu_weight = *cpu_.MakeWeight({&part, 1}, {}, dtype);
    Twin out = Twin::Poison(*device_, DType::kF32, 5, 20);
    device_->Embed(device_tokens.data(), 3, weight, out.device());
    cpu_.Embed(tokens.data(), 3, cpu_weight, out.cpu());
    out.ExpectNear(Activations() == DType::kF32 || dtype == DType::kF32 || dtype == DType::kI8 ? 0 : 0x1p-8);
  }
}

// Outputs in the type of activations and in F32; weights in both and in int8.
TEST_P(OpsTest, Linear) {
  for (const auto& [m, k, n] :
       {std::tuple<int64_t, int64_t, int64_t>{1, 64, 8}, {5, 96, 33}, {4, 20, 9}, {9, 35, 3}, {0, 8, 8}, {3, 1, 1}}) {
    const std::vector<float> values = RandomFloats(n * k, 1), bias = RandomFloats(n, 2);
    const HostMatrix parts[] = {{values.data(), DType::kF32, n - n / 2, k},
                                {values.data() + (n - n / 2) * k, DType::kF32, n / 2, k}};
    for (const DType dtype : {Activations(), DType::kF32, DType::kI8}) {
      const Weight weight = *device_->MakeWeight(parts, bias, dtype), cpu_weight = *cpu_.MakeWeight(parts, bias, dtype);
      for (const DType out_dtype : {Activations(), DType::kF32}) {
        Twin x = Random(m, k, 3), out = Twin::Poison(*device_, out_dtype, m, n);
        device_->Linear(x.device(), weight, out.device());
        cpu_.Linear(x.cpu(), cpu_weight, out.cpu());
        out.ExpectNear(out_dtype == DType::kF32 ? 4e-6 : Ulp());
      }
    }
  }
}

// Integers are exact: whatever the order of sums, a product's bits are the CPU's.
TEST_P(OpsTest, Int8LinearsAreExact) {
  const std::vector<float> values = RandomFloats(24 * 300, 1);
  const HostMatrix part{values.data(), DType::kF32, 24, 300};
  const Weight weight = *device_->MakeWeight({&part, 1}, {}, DType::kI8),
               cpu_weight = *cpu_.MakeWeight({&part, 1}, {}, DType::kI8);
  Twin x = Random(6, 300, 2), out = Twin::Poison(*device_, DType::kF32, 6, 24);
  device_->Linear(x.device(), weight, out.device());
  cpu_.Linear(x.cpu(), cpu_weight, out.cpu());
  out.ExpectNear(3e-7);  // the product of two scales may be rounded in another order
}

TEST_P(OpsTest, Int8LinearsOfWhatIsNotFiniteAreNaN) {
  const std::vector<float> values = RandomFloats(4 * 8, 1);
  const HostMatrix part{values.data(), DType::kF32, 4, 8};
  const Weight weight = *device_->MakeWeight({&part, 1}, {}, DType::kI8);
  std::vector<float> x(3 * 8, 1.0f);
  x[3] = INFINITY;
  x[8 + 3] = NAN;
  Twin input(*device_, Activations(), 3, 8, x), out = Poison(3, 4);
  device_->Linear(input.device(), weight, out.device());
  const std::vector<float> seen = out.FromDevice();
  for (size_t i = 0; i < 8; ++i) EXPECT_TRUE(std::isnan(seen[i])) << i;
  for (size_t i = 8; i < 12; ++i) EXPECT_FALSE(std::isnan(seen[i])) << i;
}

INSTANTIATE_FOR_EACH_DTYPE_AND_ORDER(OpsTest);

}  // namespace
}  // namespace weft
