// What an engine on a CUDA device records, and when it takes its memory.
#include <gtest/gtest.h>

#include <vector>

#include "engine/replay_size.h"
#include "tests/engine/parallel_case.h"
#include "tests/kernels/cuda_on_cpu/counters.h"

namespace weft {
namespace {

TEST(ReplayTest, DecodesByRecordingsAndAllocatesNothingOnceItIsReady) {
  const Case c{.model = "llama3", .sizes = {}};
  const ModelConfig config = *LoadModelConfig(FixtureModel(c.model));
  EngineSetup setup = SetupOf(c, config);
  setup.weights.dtype = DType::kI8;  // of which activations are quantised, too
  setup.device = {.kind = DeviceKind::kCuda, .num_threads = 1, .activations = DType::kBF16};
  std::unique_ptr<Engine> engine = *OpenOneEngine(config, setup);
  const int64_t num_allocations = cuda::NumAllocations(), num_replays = cuda::NumReplays();
  EXPECT_GT(num_allocations, 0);
  EXPECT_GT(num_replays, 0) << "they are recorded before it is ready";
  const std::vector<Output> outputs = RunAll(std::move(engine));
  for (const Output& output : outputs) EXPECT_FALSE(output.tokens.empty());
  EXPECT_EQ(cuda::NumAllocations(), num_allocations);
  EXPECT_GT(cuda::NumReplays(), num_replays + 10);
}

TEST(ReplayTest, SizesAreFewAndFillUpLittle) {
  int num_sizes = 0;
  for (int n = 1; n <= 512; ++n) {
    const int size = ReplaySize(n, 512);
    EXPECT_GE(size, n);
    EXPECT_LE(size - n, n <= 256 ? 7 : 31);
    EXPECT_EQ(ReplaySize(size, 512), size) << "of " << n;
    if (size == n) ++num_sizes;
  }
  EXPECT_LE(num_sizes, 48);
  EXPECT_EQ(ReplaySize(5, 6), 6) << "at most as many as can be";
}

}  // namespace
}  // namespace weft
