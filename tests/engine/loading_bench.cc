// Measures how fast weights load from a page cache that holds them, as a Markdown table.
//
//   weft_loading_bench [MIB] [THREADS]
//
// Makes up a checkpoint of about MIB (512) in a directory of its own and loads it with THREADS (all cores). A time is
// the best of five: what others do on the machine only adds to it. GB/s count the checkpoint's bytes.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include "engine/dummy_tensors.h"
#include "engine/sha256.h"
#include "engine/tensor_list.h"
#include "engine/weights.h"
#include "kernels/check.h"
#include "kernels/device.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// As many layers as it takes; the embedding and the head are a third of the smallest.
ModelConfig ConfigOf(int64_t mib) {
  ModelConfig config;
  config.model_type = "llama";
  config.architecture = "LlamaForCausalLM";
  config.vocab_size = 16000;
  config.hidden_size = 2048;
  config.intermediate_size = 5632;
  config.num_heads = 16;
  config.num_kv_heads = 4;
  config.head_dim = 128;
  config.dtype = DType::kBF16;
  constexpr int64_t kLayerBytes = int64_t{2} * 2048 * (2048 + 2 * 512 + 2048 + 3 * 5632);
  config.num_layers = static_cast<int>(std::max<int64_t>(1, ((mib << 20) - int64_t{4} * 16000 * 2048) / kLayerBytes));
  return config;
}

std::vector<int64_t> ShapeOf(const TensorSpec& spec) {
  if (spec.role != TensorSpec::Role::kMatrix) return {spec.rows};
  return {spec.rows, spec.cols};
}

int64_t CountOf(const TensorSpec& spec) {
  return spec.role == TensorSpec::Role::kMatrix ? spec.rows * spec.cols : spec.rows;
}

// Returns the file's bytes.
int64_t WriteCheckpoint(const TempDir& dir, const ModelConfig& config) {
  const ModelSpec spec = ListTensors(config, WholeModel(config));
  const std::vector<const TensorSpec*> tensors = AllTensors(spec);
  std::string header = "{";
  int64_t end = 0;
  for (const TensorSpec* tensor : tensors) {
    const int64_t begin = std::exchange(end, end + 2 * CountOf(*tensor));
    absl::StrAppend(&header, begin == 0 ? "" : ",", "\"", tensor->name, R"(":{"dtype":"BF16","shape":[)",
                    absl::StrJoin(ShapeOf(*tensor), ","), R"(],"data_offsets":[)", begin, ",", end, "]}");
  }
  const std::string head = SafetensorsBytes(header + "}", "");
  std::ofstream file(dir.File("model.safetensors"), std::ios::binary);
  file.write(head.data(), static_cast<std::streamsize>(head.size()));
  std::vector<uint16_t> values;
  for (const TensorSpec* tensor : tensors) {
    values.resize(static_cast<size_t>(CountOf(*tensor)));
    FillDummyTensor(1, tensor->name, 0, absl::MakeSpan(values));
    file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * 2));
  }
  CHECK(file.good(), "the disk holds the checkpoint");
  return static_cast<int64_t>(head.size()) + end;
}

struct Cost {
  double seconds = 1e9;
  double cpu_seconds = 1e9;  // of all threads
};

double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

Cost LoadCost(const ModelDir& dir, const ModelConfig& config, int tensor_size, std::optional<DType> dtype,
              int threads) {
  const std::vector<ParallelPlan> plans = *MakePlans(config, {.tensor = tensor_size});
  WeightOptions options;
  options.dtype = dtype;
  Cost best;
  for (int i = 0; i < 5; ++i) {
    const auto backend = *OpenDevice({DeviceKind::kCpu, threads});
    const Clock::time_point begin = Clock::now();
    const double cpu_begin = CpuSeconds();
    CHECK(LoadRankWeights(dir, config, plans, options, *backend).ok(), "the checkpoint is good");
    best.seconds = std::min(best.seconds, SecondsSince(begin));
    best.cpu_seconds = std::min(best.cpu_seconds, CpuSeconds() - cpu_begin);
  }
  return best;
}

ModelDir WithManifest(const TempDir& dir, int64_t bytes) {
  const std::string text = absl::StrCat(R"({"version": 1, "files": [{"path": "model.safetensors", "size": )", bytes,
                                        R"(, "sha256": ")", Sha256Hex(ReadAll(dir.File("model.safetensors"))), "\"}]}");
  return ModelDir(dir.path(), std::make_shared<const ModelManifest>(*ModelManifest::Parse("manifest", text)));
}

void Print(const char* name, int tensor_size, const Cost& cost, int64_t bytes) {
  std::printf("| %s | %d | %.2f s | %.2f s | %.2f |\n", name, tensor_size, cost.seconds, cost.cpu_seconds,
              static_cast<double>(bytes) * 1e-9 / cost.seconds);
}

void Run(int64_t mib, int threads) {
  const TempDir dir;
  const ModelConfig config = ConfigOf(mib);
  const int64_t bytes = WriteCheckpoint(dir, config);
  std::printf("%d threads, %.0f MB\n\n| weights | tensor ranks | time | CPU time | GB/s |\n|---|---:|---:|---:|---:|\n",
              NumThreads({DeviceKind::kCpu, threads}), static_cast<double>(bytes) * 1e-6);
  const std::pair<const char*, std::optional<DType>> dtypes[] = {
      {"bf16, as stored", std::nullopt}, {"int8", DType::kI8}, {"f32", DType::kF32}};
  for (const auto& [name, dtype] : dtypes) {
    for (const int tensor_size : {1, 2}) {
      Print(name, tensor_size, LoadCost(dir.path(), config, tensor_size, dtype, threads), bytes);
    }
  }
  const ModelDir manifested = WithManifest(dir, bytes);
  for (const int tensor_size : {1, 2}) {
    Print("bf16, held to a manifest", tensor_size, LoadCost(manifested, config, tensor_size, std::nullopt, threads),
          bytes);
  }
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) { weft::Run(argc > 1 ? std::atoll(argv[1]) : 512, argc > 2 ? std::atoi(argv[2]) : 0); }
