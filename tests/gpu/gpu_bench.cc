// Measures a CUDA device's ops, and decode steps of whole models, beside what the device can do, probed in the same
// run.
//
//   weft_gpu_bench [--json FILE] [--small]
//
// Prints a Markdown table; FILE gets the same as JSON. --small: shapes that say nothing of speed, for a test.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/local_engine.h"
#include "kernels/device.h"
#include "nlohmann/json.hpp"

namespace weft {
namespace {

using Json = nlohmann::json;

// One decode step and the ops in it, of Llama 3.1 8B.
struct Shapes {
  int64_t hidden = 4096, inner = 14336, vocab = 128256;
  int num_layers = 32, num_heads = 32, num_kv_heads = 8, head_dim = 128;
  int64_t context = 8192;
  int64_t copied_rows = 16384;  // of `hidden` floats
  int64_t matmul = 8192;        // rows and columns
  double seconds = 0.2;         // of each measurement
};

Shapes SmallShapes() {
  return {.hidden = 64,
          .inner = 96,
          .vocab = 200,
          .num_layers = 2,
          .num_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 16,
          .context = 40,
          .copied_rows = 8,
          .matmul = 64,
          .seconds = 0};
}

class Bench {
 public:
  Bench(const Shapes& shapes, Backend& device) : shapes_(shapes), device_(device) {}

  void Run() {
    Roofs();
    Linears();
    RowOps();
    Attentions();
  }
  void DecodeSteps();
  Json rows() const { return rows_; }

 private:
  // Least of five rounds, in each of which the op is enqueued so often that the waits at the ends don't count.
  double SecondsOf(const std::function<void()>& op) const {
    const auto time = [&](int count) {
      Check(device_.Synchronize());
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < count; ++i) op();
      Check(device_.Synchronize());
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / count;
    };
    const double once = time(1);
    const int count = std::clamp(static_cast<int>(shapes_.seconds / 5 / once), 1, 10'000);
    double best = time(count);
    for (int round = 1; round < 5 && shapes_.seconds > 0; ++round) best = std::min(best, time(count));
    return best;
  }

  static void Check(const absl::Status& status) {
    if (status.ok()) return;
    std::cerr << status << "\n";
    std::exit(1);
  }

  Buffer Memory(int64_t bytes) { return device_.Allocate(static_cast<size_t>(bytes)).value(); }
  Tensor Activations(const Buffer& memory, int64_t rows, int64_t cols) const {
    return DenseTensor(memory.data(), device_.activation_dtype(), rows, cols);
  }

  // `amount`: bytes, where copying is the roof, or FLOPs.
  void Add(const std::string& op, const std::string& shape, double seconds, const std::string& roof, double amount) {
    const double limit = roof == "copy" ? copy_ : roof == "matmul" ? matmul_ : 0;
    Json row = {{"op", op}, {"shape", shape}, {"seconds", seconds}, {"roof", roof}, {"rate", amount / seconds}};
    row["of_roof"] = limit > 0 ? Json(amount / seconds / limit) : Json(nullptr);
    rows_.push_back(row);
    const std::string rate = roof == "copy"     ? absl::StrFormat("%.0f GB/s", amount / seconds * 1e-9)
                             : roof == "matmul" ? absl::StrFormat("%.1f TFLOP/s", amount / seconds * 1e-12)
                                                : "";
    const std::string share = limit > 0 ? absl::StrFormat("%.0f %%", 100 * amount / seconds / limit) : "";
    std::cout << "\n| " << op << " | " << shape << " | " << absl::StrFormat("%.1f us", seconds * 1e6) << " | " << rate
              << " | " << share << " |" << std::flush;
  }

  void Roofs();
  void Linears();
  void RowOps();
  void Attentions();
  Weight WeightOf(int64_t out_features, int64_t in_features, DType dtype);

  const Shapes shapes_;
  Backend& device_;
  double copy_ = 0;    // bytes a second, read and written
  double matmul_ = 0;  // FLOPs a second
  Json rows_ = Json::array();
};

Weight Bench::WeightOf(int64_t out_features, int64_t in_features, DType dtype) {
  std::vector<uint16_t> values(static_cast<size_t>(out_features * in_features));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(0x3c00 + i * 2654435761u % 512);  // BF16
  const HostMatrix part{values.data(), DType::kBF16, out_features, in_features};
  return device_.MakeWeight({&part, 1}, {}, dtype).value();
}

void Bench::Roofs() {
  const int64_t rows = shapes_.copied_rows, cols = shapes_.hidden;
  const Buffer from = Memory(rows * cols * 4), to = Memory(rows * cols * 4), order = Memory(rows * 4);
  std::vector<int32_t> places;
  for (int32_t i = 0; i < rows; ++i) places.push_back(i);
  device_.CopyFromHost(order.data(), places.data(), places.size() * sizeof(int32_t));
  const Tensor x = DenseTensor(from.data(), DType::kF32, rows, cols),
               out = DenseTensor(to.data(), DType::kF32, rows, cols);
  const double copying = SecondsOf([&] { device_.GatherRows(x, order.As<int32_t>(), out); });
  copy_ = 2.0 * static_cast<double>(rows * cols * 4) / copying;
  Add("copy", absl::StrFormat("%d x %d f32", rows, cols), copying, "copy", 2.0 * static_cast<double>(rows * cols * 4));

  const int64_t n = shapes_.matmul;
  const Weight weight = WeightOf(n, n, DType::kBF16);
  const Buffer in = Memory(n * n * 2), product = Memory(n * n * 2);
  const double multiplying =
      SecondsOf([&] { device_.Linear(Activations(in, n, n), weight, Activations(product, n, n)); });
  const double flops = 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  matmul_ = flops / multiplying;
  Add("matmul", absl::StrFormat("%d x %d x %d bf16", n, n, n), multiplying, "matmul", flops);
}

void Bench::Linears() {
  const int64_t k = shapes_.hidden, n = 2 * shapes_.inner;
  for (const auto& [dtype, name] : {std::pair(DType::kBF16, "bf16"), {DType::kI8, "int8"}}) {
    const Weight weight = WeightOf(n, k, dtype);
    for (const int64_t rows : {1, 2, 4, 8, 16, 32, 64, 512}) {
      const Buffer in = Memory(rows * k * 2), out = Memory(rows * n * 2);
      const double seconds =
          SecondsOf([&] { device_.Linear(Activations(in, rows, k), weight, Activations(out, rows, n)); });
      const bool is_large = rows >= 512;
      const auto bytes = static_cast<double>(n * k) * static_cast<double>(DTypeBytes(dtype));
      const auto flops = 2.0 * static_cast<double>(rows) * static_cast<double>(n * k);
      Add("Linear", absl::StrFormat("%d rows, %d -> %d %s", rows, k, n, name), seconds, is_large ? "matmul" : "copy",
          is_large ? flops : bytes);
    }
  }
}

void Bench::RowOps() {
  for (const int64_t rows : {64, 512, 4096}) {
    const int64_t h = shapes_.hidden, f = shapes_.inner;
    const Buffer hidden = Memory(rows * h * 4), delta = Memory(rows * h * 2), out = Memory(rows * h * 2),
                 norm = Memory(h * 4), gate_up = Memory(rows * 2 * f * 2), gated = Memory(rows * f * 2);
    const Tensor x = DenseTensor(hidden.data(), DType::kF32, rows, h);
    const double norming = SecondsOf([&] {
      device_.AddRmsNorm(x, Activations(delta, rows, h), norm.As<float>(), 1e-5f, Activations(out, rows, h));
    });
    Add("RmsNorm", absl::StrFormat("%d x %d, with residual", rows, h), norming, "copy",
        static_cast<double>(rows * h) * 12);
    const double gating =
        SecondsOf([&] { device_.SwiGlu(Activations(gate_up, rows, 2 * f), Activations(gated, rows, f)); });
    Add("SwiGlu", absl::StrFormat("%d x %d", rows, f), gating, "copy", static_cast<double>(rows * f) * 6);
  }
}

// Rows of `chunk` tokens, each the last of a sequence of `context`.
void Bench::Attentions() {
  const AttentionHeads heads{shapes_.num_heads, shapes_.num_kv_heads, shapes_.head_dim};
  constexpr int kBlock = 16;
  const int64_t context = shapes_.context, blocks_a_row = (context + kBlock - 1) / kBlock;
  for (const auto& [num_rows, chunk] :
       {std::pair<int64_t, int64_t>{1, 1}, {16, 1}, {64, 1}, {1, context / 4}, {1, context}}) {
    const int64_t tokens = num_rows * chunk, block_elements = int64_t{heads.num_kv_heads} * kBlock * heads.head_dim;
    const Buffer keys = Memory(num_rows * blocks_a_row * block_elements * 2),
                 values = Memory(num_rows * blocks_a_row * block_elements * 2);
    std::vector<int32_t> positions, row_begin = {0}, block_begin, block_ids;
    for (int64_t row = 0; row < num_rows; ++row) {
      for (int64_t i = 0; i < chunk; ++i) positions.push_back(static_cast<int32_t>(context - chunk + i));
      row_begin.push_back(static_cast<int32_t>(positions.size()));
      block_begin.push_back(static_cast<int32_t>(row * blocks_a_row));
    }
    for (int64_t i = 0; i < num_rows * blocks_a_row; ++i) block_ids.push_back(static_cast<int32_t>(i));
    std::vector<Buffer> arrays;
    const auto upload = [&](const std::vector<int32_t>& ints) {
      arrays.push_back(Memory(static_cast<int64_t>(ints.size() * sizeof(int32_t))));
      device_.CopyFromHost(arrays.back().data(), ints.data(), ints.size() * sizeof(int32_t));
      return arrays.back().As<int32_t>();
    };
    const RowMap rows{upload(positions), upload(row_begin),          upload(block_begin),
                      upload(block_ids), static_cast<int>(num_rows), static_cast<int>(tokens)};
    const KvView kv{keys.data(), values.data(), device_.activation_dtype(), heads.num_kv_heads, kBlock, heads.head_dim};
    const int64_t cols = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim;
    const Buffer qkv = Memory(tokens * cols * 2), out = Memory(tokens * heads.num_heads * heads.head_dim * 2);
    const double seconds = SecondsOf([&] {
      device_.Attention(Activations(qkv, tokens, cols), {heads, 0.088f, 0}, rows, kv,
                        Activations(out, tokens, int64_t{heads.num_heads} * heads.head_dim));
    });
    const auto bytes = static_cast<double>(num_rows * context * heads.num_kv_heads * heads.head_dim) * 4;
    const double seen = static_cast<double>(chunk) * (static_cast<double>(context) - static_cast<double>(chunk) / 2);
    const double flops = 4.0 * heads.num_heads * heads.head_dim * seen * static_cast<double>(num_rows);
    Add("Attention",
        absl::StrFormat("%d rows of %d at %d, %d/%d heads of %d", num_rows, chunk, context, heads.num_heads,
                        heads.num_kv_heads, heads.head_dim),
        seconds, chunk > 1 ? "matmul" : "copy", chunk > 1 ? flops : bytes);
  }
}

Batch DecodeOf(int64_t step, int num_rows) {
  Batch batch;
  batch.step = step;
  for (int row = 0; row < num_rows; ++row) {
    batch.token_ids.push_back(step == 0 ? 1 : kLastSampled);
    batch.positions.push_back(static_cast<int32_t>(step));
    batch.row_begin.push_back(row + 1);
    batch.slots.push_back(row);
    if (step == 0)
      batch.slot_starts.push_back({.slot = row, .num_prompt_tokens = 1, .sampling = {.temperature = 0}, .tokens = {}});
    if (step % 16 == 0)
      batch.block_updates.push_back({row, static_cast<int32_t>(step / 16), static_cast<int32_t>(row * 16 + step / 16)});
    batch.sampling.push_back({row, step + 1, std::nullopt});
  }
  return batch;
}

// Of the whole model with made-up weights, two steps in flight: no client, no scheduler.
void Bench::DecodeSteps() {
  const std::filesystem::path dir =
      std::filesystem::temp_directory_path() / absl::StrFormat("weft_gpu_bench.%d", getpid());
  std::filesystem::create_directory(dir);
  const Json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"model_type", "llama"},
                       {"hidden_act", "silu"},
                       {"hidden_size", shapes_.hidden},
                       {"intermediate_size", shapes_.inner},
                       {"vocab_size", shapes_.vocab},
                       {"num_hidden_layers", shapes_.num_layers},
                       {"num_attention_heads", shapes_.num_heads},
                       {"num_key_value_heads", shapes_.num_kv_heads},
                       {"head_dim", shapes_.head_dim},
                       {"max_position_embeddings", 4096},
                       {"rms_norm_eps", 1e-5},
                       {"rope_theta", 500000.0},
                       {"tie_word_embeddings", false},
                       {"torch_dtype", "bfloat16"},
                       {"bos_token_id", 1},
                       {"eos_token_id", 2}};
  std::ofstream(dir / "config.json") << config.dump();
  for (const auto& [dtype, name] : {std::pair(DType::kBF16, "bf16"), {DType::kI8, "int8"}}) {
    EngineSetup setup{.model_dir = dir.string(),
                      .weights = {.format = LoadFormat::kDummy, .dtype = dtype},
                      .device = {.kind = DeviceKind::kCuda},
                      .max_model_len = 256,
                      .max_num_seqs = 64,
                      .max_num_batched_tokens = 512};
    if (shapes_.seconds == 0) setup.max_num_seqs = 4;
    const ModelConfig model = LoadModelConfig(dir.string()).value();
    setup.kv_cache_bytes = KvCacheBytes(model, setup, 64 * 256).value();
    const auto begin = std::chrono::steady_clock::now();
    const auto engines = LocalEngines::Load(model, setup, 1).value();
    const std::unique_ptr<Engine> engine = engines->Open(0).value();
    Add("Start", absl::StrFormat("%s weights", name),
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), "none", 0);
    for (const int rows : {1, 16, 64}) {
      if (rows > setup.max_num_seqs) continue;
      const int num_steps = shapes_.seconds > 0 ? 200 : 4;
      engine->Submit(DecodeOf(0, rows));
      const auto first = std::chrono::steady_clock::now();
      for (int64_t step = 1; step < num_steps; ++step) {
        engine->Submit(DecodeOf(step, rows));
        Check(engine->Collect().status());
      }
      Check(engine->Collect().status());
      const double seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - first).count() / (num_steps - 1);
      int64_t bytes = shapes_.vocab * shapes_.hidden * 2;
      const int64_t linears = shapes_.hidden * (shapes_.num_heads + 2 * shapes_.num_kv_heads) * shapes_.head_dim +
                              shapes_.hidden * shapes_.num_heads * shapes_.head_dim +
                              3 * shapes_.hidden * shapes_.inner;
      bytes += shapes_.num_layers * linears * static_cast<int64_t>(DTypeBytes(dtype));
      Add("Decode step", absl::StrFormat("%d rows, %s weights", rows, name), seconds, "copy",
          static_cast<double>(bytes));
    }
  }
  std::filesystem::remove_all(dir);
}

int Main(const std::vector<std::string>& args) {
  Shapes shapes;
  std::string file;
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--small") {
      shapes = SmallShapes();
    } else if (args[i] == "--json" && i + 1 < args.size()) {
      file = args[++i];
    } else {
      std::cerr << "usage: weft_gpu_bench [--json FILE] [--small]\n";
      return 64;
    }
  }
  const CudaSupport cuda = FindCuda();
  if (cuda.devices.empty()) {
    std::cerr << "weft_gpu_bench: no CUDA device: " << (cuda.built_for.empty() ? "built without CUDA" : cuda.problem)
              << "\n";
    return 1;
  }
  const auto device = OpenDevice({.kind = DeviceKind::kCuda, .batch_invariant = false}).value();
  std::cout << cuda.devices[0].name << "\n\n| op | shape | time | rate | of roof |\n|---|---|---:|---:|---:|";
  Bench bench(shapes, *device);
  bench.Run();
  bench.DecodeSteps();
  std::cout << "\n";
  if (file.empty()) return 0;
  const Json result = {
      {"device", cuda.devices[0].name}, {"capability", cuda.devices[0].capability}, {"rows", bench.rows()}};
  std::ofstream(file) << result.dump(2) << "\n";
  return 0;
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) { return weft::Main({argv + 1, argv + argc}); }
