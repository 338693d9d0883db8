// Reading ahead, and what is told of it.
#include "engine/tensor_read_ahead.h"

#include <atomic>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/sha256.h"
#include "engine/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/device.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

TensorSpec Matrix(const std::string& name, int64_t rows, int64_t cols) {
  return {name, TensorSpec::Role::kMatrix, rows, cols, {0, rows}, {0, cols}};
}

// Rows that hold their numbers; counts what is read at once and in all.
class CountingSource final : public TensorSource {
 public:
  DType dtype(const TensorSpec&) const override { return DType::kF32; }

  absl::Status Read(const TensorSpec& tensor, Range rows, std::byte* out) const override {
    if (tensor.name == bad && rows.end() == tensor.rows) return absl::DataLossError("bad");
    for (int64_t row = 0; row < rows.count; ++row) {
      const std::vector<float> values(static_cast<size_t>(tensor.cols), static_cast<float>(rows.begin + row));
      std::memcpy(out + row * tensor.cols * 4, values.data(), values.size() * 4);
    }
    bytes_read += rows.count * tensor.cols * 4;
    return absl::OkStatus();
  }

  std::string bad;
  mutable std::atomic<int64_t> bytes_read{0};
};

std::vector<TensorSpec> SomeTensors() {
  std::vector<TensorSpec> tensors;
  for (int i = 0; i < 60; ++i) tensors.push_back(Matrix(absl::StrCat("t", i), 1 + i * 37 % 50, 1 + i * 13 % 30));
  return tensors;
}

std::vector<const TensorSpec*> PointersTo(const std::vector<TensorSpec>& tensors) {
  std::vector<const TensorSpec*> order;
  for (const TensorSpec& tensor : tensors) order.push_back(&tensor);
  return order;
}

TEST(TensorReadAheadTest, GivesEveryTensorInOrderInSlicesOfAnySize) {
  const std::vector<TensorSpec> tensors = SomeTensors();
  for (const int64_t slice : {1, 100, 1000, 1 << 20}) {
    for (const int64_t ahead : {0, 500, 1 << 20}) {
      const CountingSource source;
      LoadMeter meter(nullptr);
      TensorReadAhead reader(source, PointersTo(tensors), meter, {3, slice, ahead});
      for (const TensorSpec& tensor : tensors) {
        const absl::StatusOr<HostTensor> memory = reader.Next(tensor);
        ASSERT_TRUE(memory.ok()) << memory.status();
        ASSERT_EQ(memory->count, static_cast<size_t>(tensor.rows * tensor.cols));
        for (size_t i = 0; i < memory->count; ++i) {
          float value;
          std::memcpy(&value, memory->data.get() + i * 4, 4);
          ASSERT_EQ(value, static_cast<float>(static_cast<int64_t>(i) / tensor.cols));
        }
      }
    }
  }
}

TEST(TensorReadAheadTest, ReadsNoFurtherAheadThanItMay) {
  std::vector<TensorSpec> tensors;
  for (int i = 0; i < 100; ++i) tensors.push_back(Matrix(absl::StrCat("t", i), 10, 10));  // 400 bytes each
  const CountingSource source;
  LoadMeter meter(nullptr);
  TensorReadAhead reader(source, PointersTo(tensors), meter, {4, 100, 1000});
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_LE(source.bytes_read.load(), static_cast<int64_t>(i) * 400 + 1000);
    ASSERT_TRUE(reader.Next(tensors[i]).ok());
  }
  EXPECT_EQ(source.bytes_read.load(), 40000);
}

TEST(TensorReadAheadTest, GivesAnErrorInItsPlace) {
  const std::vector<TensorSpec> tensors = SomeTensors();
  CountingSource source;
  source.bad = "t40";
  LoadMeter meter(nullptr);
  TensorReadAhead reader(source, PointersTo(tensors), meter, {4, 300, 1 << 20});
  for (size_t i = 0; i < 40; ++i) EXPECT_TRUE(reader.Next(tensors[i]).ok()) << i;
  EXPECT_TRUE(absl::IsDataLoss(reader.Next(tensors[40]).status()));
}

TEST(TensorReadAheadTest, EndsWithoutBeingReadToItsEnd) {
  const std::vector<TensorSpec> tensors = SomeTensors();
  const CountingSource source;
  LoadMeter meter(nullptr);
  { const TensorReadAhead unused(source, PointersTo(tensors), meter, {2, 100, 1000}); }
  TensorReadAhead some(source, PointersTo(tensors), meter, {2, 100, 1000});
  EXPECT_TRUE(some.Next(tensors[0]).ok());
}

struct Told {
  int64_t done = 0;
  int64_t total = 0;
};

std::vector<Told> ProgressOf(const ModelDir& dir, const ParallelSizes& sizes, LoadFormat format,
                             std::vector<std::string>& phases) {
  const ModelConfig config = *LoadModelConfig(dir.path);
  const auto backend = *OpenDevice({.num_threads = 2});
  std::vector<Told> told;
  WeightOptions options;
  options.format = format;
  options.observer.on_bytes = [&](int64_t done, int64_t total) { told.push_back({done, total}); };
  options.observer.on_phase = [&](absl::string_view phase, absl::Duration took) {
    EXPECT_GE(took, absl::ZeroDuration());
    phases.emplace_back(phase);
  };
  const auto weights = LoadRankWeights(dir, config, *MakePlans(config, sizes), options, *backend);
  EXPECT_TRUE(weights.ok()) << weights.status();
  return told;
}

TEST(LoadProgressTest, RisesToTheEndWhateverIsLoaded) {
  for (const char* model : {"llama3", "mixtral"}) {
    for (const LoadFormat format : {LoadFormat::kSafetensors, LoadFormat::kDummy}) {
      for (const ParallelSizes& sizes : {ParallelSizes{}, ParallelSizes{.tensor = 2, .pipeline = 2}}) {
        std::vector<std::string> phases;
        const std::vector<Told> told = ProgressOf(FixtureModel(model), sizes, format, phases);
        ASSERT_GT(told.size(), 2u);
        int64_t last = 0;
        for (const Told& each : told) {
          EXPECT_GT(each.done, last);
          EXPECT_EQ(each.total, told.back().total);
          last = each.done;
        }
        EXPECT_EQ(last, told.back().total);
        EXPECT_THAT(phases, ::testing::ElementsAreArray(kLoadPhases));
      }
    }
  }
}

TEST(LoadProgressTest, CountsWhatAManifestAsksFor) {
  const TempDir dir;
  std::filesystem::copy(FixtureModel("llama3"), dir.path());
  const std::string bytes = ReadAll(dir.File("model.safetensors"));
  const std::string text = absl::StrCat(R"({"version": 1, "files": [{"path": "model.safetensors", "size": )",
                                        bytes.size(), R"(, "sha256": ")", Sha256Hex(bytes), "\"}]}");
  const ModelDir manifested(dir.path(), std::make_shared<const ModelManifest>(*ModelManifest::Parse("M", text)));
  std::vector<std::string> phases;
  const auto plain = ProgressOf(dir.path(), {}, LoadFormat::kSafetensors, phases);
  const auto checked = ProgressOf(manifested, {}, LoadFormat::kSafetensors, phases);
  EXPECT_EQ(checked.back().total, plain.back().total + static_cast<int64_t>(bytes.size()));
  EXPECT_EQ(checked.back().done, checked.back().total);
  EXPECT_EQ(checked.front().total, checked.back().total);
}

}  // namespace
}  // namespace weft
