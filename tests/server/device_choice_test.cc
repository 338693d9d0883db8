#include "server/device_choice.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

CudaSupport Devices(int count) {
  CudaSupport cuda{.built_for = "80, 90a", .problem = count == 0 ? "no driver" : "", .devices = {}};
  for (int i = 0; i < count; ++i) {
    cuda.devices.push_back({.name = "Shuttle", .capability = "9.0", .memory_bytes = int64_t{100 - i} << 30});
  }
  return cuda;
}

TEST(DeviceChoiceTest, LeftToItselfTakesWhatThereIs) {
  const absl::StatusOr<DeviceChoice> cpu = ChooseDevice({}, {}, Devices(0));
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  EXPECT_EQ(cpu->device.kind, DeviceKind::kCpu);
  EXPECT_EQ(cpu->workers, WorkerKind::kThreads);

  const absl::StatusOr<DeviceChoice> cuda = ChooseDevice({}, {}, Devices(2));
  ASSERT_TRUE(cuda.ok()) << cuda.status();
  EXPECT_EQ(cuda->device.kind, DeviceKind::kCuda);
  EXPECT_EQ(cuda->workers, WorkerKind::kProcesses);
  EXPECT_EQ(cuda->device_memory_bytes, static_cast<int64_t>(0.9 * (int64_t{99} << 30)));
}

TEST(DeviceChoiceTest, DoesAsItIsTold) {
  Config config;
  config.engine.device = DeviceKind::kCpu;
  EXPECT_EQ(ChooseDevice(config, {}, Devices(2))->device.kind, DeviceKind::kCpu);
  config.engine.device = DeviceKind::kCuda;
  config.workers.kind = WorkerKind::kThreads;
  EXPECT_EQ(ChooseDevice(config, {}, Devices(1))->workers, WorkerKind::kThreads);
  config.engine.device.reset();
  config.workers = {.num_nodes = 2};
  EXPECT_EQ(ChooseDevice(config, {}, Devices(0))->workers, WorkerKind::kProcesses) << "of several hosts";
}

TEST(DeviceChoiceTest, ActivationsAreOfTheWeightsKind) {
  Config config;
  EXPECT_EQ(ChooseDevice(config, {.dtype = DType::kF16}, Devices(1))->device.activations, DType::kF16);
  EXPECT_EQ(ChooseDevice(config, {.dtype = DType::kBF16}, Devices(1))->device.activations, DType::kBF16);
  EXPECT_EQ(ChooseDevice(config, {.dtype = DType::kF32}, Devices(1))->device.activations, DType::kBF16);
  config.engine.activation_dtype = DType::kF16;
  EXPECT_EQ(ChooseDevice(config, {.dtype = DType::kBF16}, Devices(1))->device.activations, DType::kF16);
}

TEST(DeviceChoiceTest, RefusesCudaThatIsNotThereAndTooFewDevices) {
  Config config;
  config.engine.device = DeviceKind::kCuda;
  EXPECT_THAT(std::string(ChooseDevice(config, {}, {}).status().message()), HasSubstr("built without CUDA"));
  EXPECT_THAT(std::string(ChooseDevice(config, {}, Devices(0)).status().message()), HasSubstr("no driver"));
  config.engine.replicas = 2;
  config.engine.tensor_parallel_size = 2;
  EXPECT_TRUE(ChooseDevice(config, {}, Devices(4)).ok());
  const absl::Status few = ChooseDevice(config, {}, Devices(3)).status();
  EXPECT_EQ(few.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(few.message()), HasSubstr("4 ranks on this host"));
  config.workers.num_nodes = 2;
  EXPECT_TRUE(ChooseDevice(config, {}, Devices(2)).ok()) << "the others are on another host";
}

}  // namespace
}  // namespace weft
