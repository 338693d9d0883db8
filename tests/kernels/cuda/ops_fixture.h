// A CUDA device and the CPU backend, for each type of activations and each order of a block's threads.
#pragma once

#include <memory>
#include <string>
#include <tuple>

#include "tests/kernels/cuda/device_data.h"
#include "tests/kernels/cuda_on_cpu/grid.h"

namespace weft {

using cuda::Order;

class OpsTest : public testing::TestWithParam<std::tuple<DType, Order>> {
 protected:
  OpsTest()
      : device_(*OpenDevice({.kind = DeviceKind::kCuda, .num_threads = 1, .activations = Activations()})), cpu_(1) {
    cuda::SetOrder(std::get<Order>(GetParam()), 7);
  }
  ~OpsTest() override { cuda::SetOrder(Order::kForward); }

  static DType Activations() { return std::get<DType>(GetParam()); }
  // An ulp of what is written.
  static double Ulp() {
    switch (Activations()) {
      case DType::kBF16:
        return 0x1p-8;
      case DType::kF16:
        return 0x1p-11;
      default:
        return 4e-6;
    }
  }

  Twin Random(int64_t rows, int64_t cols, uint32_t seed) {
    return Twin::Random(*device_, Activations(), rows, cols, seed);
  }
  Twin Poison(int64_t rows, int64_t cols) { return Twin::Poison(*device_, Activations(), rows, cols); }
  Twin RandomFloat(int64_t rows, int64_t cols, uint32_t seed) {
    return Twin::Random(*device_, DType::kF32, rows, cols, seed);
  }

  std::unique_ptr<Backend> device_;
  cpu::CpuBackend cpu_;
};

inline std::string NameOf(const testing::TestParamInfo<std::tuple<DType, Order>>& param) {
  constexpr const char* kDTypes[] = {"F32", "BF16", "F16"};
  constexpr const char* kOrders[] = {"Forward", "Backward", "Random"};
  const auto [dtype, order] = param.param;
  return std::string(kDTypes[static_cast<size_t>(dtype)]) + kOrders[static_cast<size_t>(order)];
}

#define INSTANTIATE_FOR_EACH_DTYPE_AND_ORDER(suite)                                                              \
  INSTANTIATE_TEST_SUITE_P(Cuda, suite,                                                                          \
                           testing::Combine(testing::Values(DType::kBF16, DType::kF16, DType::kF32),             \
                                            testing::Values(Order::kForward, Order::kBackward, Order::kRandom)), \
                           NameOf)

}  // namespace weft
