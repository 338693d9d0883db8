// Linears of many rows: what cuBLASLt is told, and what comes of it.
#include "kernels/cuda/matmul.h"

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/cuda/ops_fixture.h"
#include "tests/kernels/cuda_on_cpu/counters.h"

namespace weft {
namespace {

using cuda::CudaBackend;
using cuda::Element;
using cuda::MatmulOf;

TEST(MatmulTest, TakesWeightsAsTheyAre) {
  alignas(16) char memory[16];
  Tensor x = DenseTensor(memory, DType::kBF16, 5, 64);
  x.row_stride = 96;
  const auto matmul = MatmulOf(x, memory, 24, memory, Element::kBF16, 32);
  ASSERT_TRUE(matmul.has_value());
  EXPECT_EQ(matmul->a.rows, 64);
  EXPECT_EQ(matmul->a.cols, 24);
  EXPECT_EQ(matmul->a.ld, 64);
  EXPECT_EQ(matmul->b.cols, 5);
  EXPECT_EQ(matmul->b.ld, 96);
  EXPECT_EQ(matmul->d.rows, 24);
  EXPECT_EQ(matmul->d.cols, 5);
  EXPECT_EQ(matmul->d.ld, 32);
}

TEST(MatmulTest, LeavesWhatTheLibraryHasNoKernelFor) {
  alignas(16) char memory[32];
  const Tensor x = DenseTensor(memory, DType::kBF16, 5, 64), bytes = DenseTensor(memory, DType::kI8, 5, 64);
  EXPECT_FALSE(MatmulOf(DenseTensor(memory, DType::kF32, 5, 64), memory, 24, memory, Element::kF32, 24).has_value());
  EXPECT_FALSE(MatmulOf(x, memory, 24, memory, Element::kF16, 24).has_value()) << "of another type";
  EXPECT_FALSE(MatmulOf(bytes, memory, 24, memory, Element::kBF16, 24).has_value()) << "of bytes, to anything but I32";
  EXPECT_FALSE(MatmulOf(x, memory, 20, memory, Element::kBF16, 20).has_value()) << "40 bytes a row";
  EXPECT_FALSE(MatmulOf(x, memory + 4, 24, memory, Element::kBF16, 24).has_value());
  EXPECT_FALSE(MatmulOf(DenseTensor(memory, DType::kBF16, 5, 60), memory, 24, memory, Element::kBF16, 24).has_value());
  EXPECT_FALSE(MatmulOf(DenseTensor(memory, DType::kBF16, 0, 64), memory, 24, memory, Element::kBF16, 24).has_value());
  EXPECT_TRUE(MatmulOf(x, memory, 24, memory, Element::kF32, 24).has_value());
  EXPECT_TRUE(MatmulOf(bytes, memory, 24, memory, Element::kI32, 24).has_value());
}

struct ManyRows {
  DType weights = DType::kI8;
  bool batch_invariant = true;
  bool has_bias = false;
  int64_t cols = 48;          // of out
  bool by_library = true;     // expected
  int64_t rows_of_sums = 64;  // that fit
};

TEST(MatmulTest, LinearsOfManyRowsAreThoseOfTheCpu) {
  constexpr int64_t kIn = 64;
  for (const ManyRows& c :
       {ManyRows{},
        {.rows_of_sums = 7},
        {.has_bias = true},
        {.cols = 47, .by_library = false},
        {.weights = DType::kBF16, .by_library = false},
        {.weights = DType::kBF16, .batch_invariant = false},
        {.weights = DType::kBF16, .batch_invariant = false, .has_bias = true, .by_library = false}}) {
    const std::unique_ptr<CudaBackend> device =
        *CudaBackend::Open({.batch_invariant = c.batch_invariant,
                            .max_sums_bytes = static_cast<size_t>(c.rows_of_sums * c.cols) * sizeof(int32_t)});
    cpu::CpuBackend cpu(1);
    const std::vector<float> values = RandomFloats(c.cols * kIn, 1), bias = RandomFloats(c.cols, 2);
    const HostMatrix part{values.data(), DType::kF32, c.cols, kIn};
    const auto biases = c.has_bias ? absl::MakeConstSpan(bias) : absl::Span<const float>();
    const Weight weight = *device->MakeWeight({&part, 1}, biases, c.weights),
                 cpu_weight = *cpu.MakeWeight({&part, 1}, biases, c.weights);
    for (const int64_t rows : {32, 33, 50}) {
      Twin x = Twin::Random(*device, DType::kBF16, rows, kIn, 3),
           out = Twin::Poison(*device, DType::kBF16, rows, c.cols);
      const int64_t before = cuda::NumMatmuls();
      device->Linear(x.device(), weight, out.device());
      cpu.Linear(x.cpu(), cpu_weight, out.cpu());
      out.ExpectNear(0x1p-8);
      EXPECT_EQ(cuda::NumMatmuls() > before, rows > 32 && c.by_library) << rows;
    }
  }
}

}  // namespace
}  // namespace weft
