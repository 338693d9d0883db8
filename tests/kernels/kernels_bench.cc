// Measures the CPU backend's ops and prints them beside what the machine can do, probed in the same run.
//
//   weft_kernels_bench [threads] [portable|avx2|avx512]
//
// Compare ratios, not speeds: on a shared machine the limits themselves move from minute to minute.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/cpu_backend.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace weft {
namespace {

double ReadClock(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Times calls: the fastest tenth of at least ten calls and a fifth of a second. One thread is timed by the CPU time it
// gets, several by the clock on the wall, so on a busy machine trust the former.
class Timer {
 public:
  explicit Timer(int threads) : clock_(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC) {}

  double CallSeconds(const std::function<void()>& fn) const {
    fn();
    std::vector<double> times;
    const double begin = ReadClock(clock_);
    while (times.size() < 10 || (ReadClock(clock_) - begin < 0.2 && times.size() < 2000)) {
      const double start = ReadClock(clock_);
      fn();
      times.push_back(ReadClock(clock_) - start);
    }
    std::nth_element(times.begin(), times.begin() + static_cast<ptrdiff_t>(times.size() / 10), times.end());
    return times[times.size() / 10];
  }

 private:
  clockid_t clock_;
};

#if defined(__x86_64__)
constexpr int kProbeSteps = 40000;

// FMAs on registers alone, enough chains to hide their latency. Returns FLOPs.
__attribute__((target("avx512f"), noinline)) double ProbeFmaAvx512(float* sink) {
  __m512 acc[16];
  for (int i = 0; i < 16; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 x = _mm512_set1_ps(0.5f);
  for (int step = 0; step < kProbeSteps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) acc[i] = _mm512_fmadd_ps(acc[i], x, x);
  }
  for (int i = 1; i < 16; ++i) acc[0] = _mm512_add_ps(acc[0], acc[i]);
  _mm_storeu_ps(sink, _mm512_castps512_ps128(acc[0]));
  return kProbeSteps * 16.0 * 16 * 2;
}

__attribute__((target("avx2,fma"), noinline)) double ProbeFmaAvx2(float* sink) {
  __m256 acc[12];
  for (int i = 0; i < 12; ++i) acc[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 x = _mm256_set1_ps(0.5f);
  for (int step = 0; step < kProbeSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) acc[i] = _mm256_fmadd_ps(acc[i], x, x);
  }
  for (int i = 1; i < 12; ++i) acc[0] = _mm256_add_ps(acc[0], acc[i]);
  _mm_storeu_ps(sink, _mm256_castps256_ps128(acc[0]));
  return kProbeSteps * 12.0 * 8 * 2;
}
#endif

// Multiplies and adds on whatever registers the baseline has.
double ProbeMultiplyAdd(float* sink) {
  constexpr int kLanes = 32;
  float acc[kLanes] = {};
  for (int step = 0; step < 40000; ++step) {
    for (int i = 0; i < kLanes; ++i) acc[i] = acc[i] * 0.5f + 1.0f;
  }
  *sink = acc[0];
  return 40000.0 * kLanes * 2;
}

double ProbeFma(cpu::Isa isa, float* sink) {
#if defined(__x86_64__)
  if (isa == cpu::Isa::kAvx512) return ProbeFmaAvx512(sink);
  if (isa == cpu::Isa::kAvx2) return ProbeFmaAvx2(sink);
#endif
  static_cast<void>(isa);
  return ProbeMultiplyAdd(sink);
}

uint64_t SumWords(const uint64_t* words, size_t count) {
  uint64_t sum[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    for (int lane = 0; lane < 8; ++lane) sum[lane] += words[i + static_cast<size_t>(lane)];
  }
  uint64_t total = 0;
  for (uint64_t s : sum) total += s;
  return total;
}

// The machine's limits with the threads that the backend has.
struct Limits {
  double flops = 0;
  double bytes_per_second = 0;
};

Limits Probe(cpu::CpuBackend& backend, const Timer& timer, int threads, cpu::Isa isa) {
  cpu::ThreadPool pool(threads);
  std::vector<float> sinks(static_cast<size_t>(threads) * 64);
  std::vector<double> flops(static_cast<size_t>(threads));
  Limits limits;
  const double fma_seconds = timer.CallSeconds([&] {
    pool.ParallelFor(threads, [&](int64_t task, int) {
      flops[static_cast<size_t>(task)] = ProbeFma(isa, &sinks[static_cast<size_t>(task) * 64]);
    });
  });
  limits.flops = flops[0] * threads / fma_seconds;

  // A piece a call, short enough to run undisturbed, of a whole that no cache holds.
  constexpr size_t kBytes = size_t{512} << 20;
  constexpr size_t kPiece = size_t{8} << 20;
  const Buffer memory = backend.Allocate(kBytes).value();
  std::fill_n(memory.As<char>(), kBytes, 1);  // the kernel's zero page would be read from the cache
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  size_t piece = 0;
  const double read_seconds = timer.CallSeconds([&] {
    const uint64_t* const words = memory.As<uint64_t>() + piece * kPiece / 8;
    const size_t share = kPiece / 8 / static_cast<size_t>(threads);
    pool.ParallelFor(threads, [&](int64_t task, int) {
      sums[static_cast<size_t>(task)] += SumWords(words + static_cast<size_t>(task) * share, share);
    });
    piece = (piece + 1) % (kBytes / kPiece);
  });
  limits.bytes_per_second = static_cast<double>(kPiece) / read_seconds;
  if (sums[0] == 1 || sinks[0] == 0.125f) std::printf(" ");  // the results are used, so the loops stay
  return limits;
}

class Table {
 public:
  Table(const Limits& limits, const Timer& timer) : limits_(limits), timer_(timer) {
    std::printf("\n| op | shape | weights or cache | time | GB/s | of read limit | GFLOP/s | of FMA limit |\n");
    std::printf("|---|---|---|---:|---:|---:|---:|---:|\n");
  }

  // Times fn, which moves `bytes` to or from memory and computes `flops`.
  void Add(const std::string& op, const std::string& shape, const char* type, double bytes, double flops,
           const std::function<void()>& fn) const {
    const double seconds = timer_.CallSeconds(fn);
    std::printf("| %s | %s | %s | %.3g ms | %.1f | %.0f %% | %.1f | %.0f %% |\n", op.c_str(), shape.c_str(), type,
                seconds * 1e3, bytes / seconds / 1e9, 100 * bytes / seconds / limits_.bytes_per_second,
                flops / seconds / 1e9, 100 * flops / seconds / limits_.flops);
    std::fflush(stdout);
  }

 private:
  Limits limits_;
  Timer timer_;
};

constexpr const char* kTypeNames[] = {"f32", "bf16", "f16", "int8"};

Tensor View(std::vector<float>& data, int64_t rows, int64_t cols) {
  return DenseTensor(data.data(), DType::kF32, rows, cols);
}

std::vector<float> Noise(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  uint32_t state = 1;
  for (float& value : values) {
    state = state * 1664525 + 1013904223;
    value = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
  }
  return values;
}

void BenchLinear(cpu::CpuBackend& backend, const Table& table, int64_t n, int64_t k, DType dtype) {
  const std::vector<float> w = Noise(n * k);
  const HostMatrix matrix{w.data(), DType::kF32, n, k};
  // As many copies as no cache holds, used in turn, as a model's layers are.
  const auto bytes = static_cast<int64_t>(DTypeBytes(dtype)) * n * k;
  const int64_t copies = std::max<int64_t>(1, (int64_t{300} << 20) / bytes);
  std::vector<Weight> weights;
  for (int64_t i = 0; i < copies; ++i) weights.push_back(backend.MakeWeight({&matrix, 1}, {}, dtype).value());
  size_t next = 0;
  for (int64_t m : {1, 4, 8, 16, 64, 512}) {
    std::vector<float> x = Noise(m * k);
    std::vector<float> out(static_cast<size_t>(m * n));
    const std::string shape = "M=" + std::to_string(m) + " N=" + std::to_string(n) + " K=" + std::to_string(k);
    table.Add("Linear", shape, kTypeNames[static_cast<int>(dtype)], static_cast<double>(bytes),
              2.0 * static_cast<double>(m * n * k),
              [&] { backend.Linear(View(x, m, k), weights[next++ % weights.size()], View(out, m, n)); });
  }
}

// 8 of 64 experts for each of `tokens` tokens, in turn; beside it the linear of as many weights and as many rows of
// each.
void BenchExperts(cpu::CpuBackend& backend, const Table& table, int64_t tokens, DType dtype) {
  constexpr int64_t kExperts = 64;
  constexpr int64_t kChoices = 8;
  constexpr int64_t kN = 1536;
  constexpr int64_t kIn = 2048;
  const int64_t pairs = tokens * kChoices;
  const int64_t touched = std::min(kExperts, pairs);
  const std::vector<float> w = Noise(kN * kIn);
  const HostMatrix matrix{w.data(), DType::kF32, kN, kIn};
  const auto bytes = static_cast<double>(static_cast<int64_t>(DTypeBytes(dtype)) * touched * kN * kIn);
  const double flops = 2.0 * static_cast<double>(pairs * kN * kIn);
  std::vector<float> x = Noise(tokens * kIn);
  std::vector<float> out(static_cast<size_t>(pairs * kN));
  const std::string shape = " N=" + std::to_string(kN) + " K=" + std::to_string(kIn);
  {
    std::vector<Weight> experts;
    for (int64_t e = 0; e < kExperts; ++e) experts.push_back(backend.MakeWeight({&matrix, 1}, {}, dtype).value());
    const ExpertWeights weights = backend.MakeExpertWeights(std::move(experts)).value();
    std::vector<int32_t> ids(static_cast<size_t>(pairs)), begin(kExperts + 1), rows(ids), places(ids);
    const TokenExperts choices{ids.data(), nullptr, tokens, kChoices};
    int32_t next = 0;
    table.Add("GroupedLinear", "T=" + std::to_string(tokens) + ", 8 of 64," + shape,
              kTypeNames[static_cast<int>(dtype)], bytes, flops, [&] {
                for (int32_t& id : ids) id = next++ % static_cast<int32_t>(kExperts);
                backend.GroupByExpert(choices, {0, kExperts}, {begin.data(), rows.data(), places.data(), nullptr});
                backend.GroupedLinear(View(x, tokens, kIn), rows.data(), begin.data(), weights, View(out, pairs, kN));
              });
  }
  const std::vector<HostMatrix> parts(static_cast<size_t>(touched), matrix);
  std::vector<Weight> dense;
  for (int64_t i = 0; i < kExperts / touched; ++i) dense.push_back(backend.MakeWeight(parts, {}, dtype).value());
  const int64_t m = pairs / touched;
  size_t next = 0;
  table.Add("Linear", "M=" + std::to_string(m) + " N=" + std::to_string(touched * kN) + " K=" + std::to_string(kIn),
            kTypeNames[static_cast<int>(dtype)], bytes, flops,
            [&] { backend.Linear(View(x, m, kIn), dense[next++ % dense.size()], View(out, m, touched * kN)); });
}

// `rows` sequences of `context` tokens each compute their last `chunk` tokens.
void BenchAttention(cpu::CpuBackend& backend, const Table& table, int rows, int context, int chunk, DType dtype) {
  const AttentionArgs args{{32, 4, 64}, 0.125f, 0};
  const int block_size = 16;
  const int blocks_per_row = context / block_size;
  const size_t cache_bytes = static_cast<size_t>(rows) * static_cast<size_t>(context) * 4 * 64 * DTypeBytes(dtype);
  const Buffer keys = backend.Allocate(cache_bytes).value();
  const Buffer values = backend.Allocate(cache_bytes).value();
  std::fill_n(keys.As<char>(), cache_bytes, 0x3c);
  std::fill_n(values.As<char>(), cache_bytes, 0x3c);
  const KvView kv{keys.data(), values.data(), dtype, 4, block_size, 64};
  std::vector<int32_t> positions, row_begin{0}, block_begin{0}, block_ids;
  for (int r = 0; r < rows; ++r) {
    for (int t = 0; t < chunk; ++t) positions.push_back(context - chunk + t);
    row_begin.push_back((r + 1) * chunk);
    for (int b = 0; b < blocks_per_row; ++b) block_ids.push_back(b * rows + r);
    block_begin.push_back((r + 1) * blocks_per_row);
  }
  const RowMap map{positions.data(), row_begin.data(), block_begin.data(), block_ids.data(), rows, rows * chunk};
  std::vector<float> qkv = Noise(static_cast<int64_t>(rows) * chunk * 40 * 64);
  std::vector<float> out(static_cast<size_t>(rows * chunk) * 32 * 64);
  const double pairs = static_cast<double>(rows) * chunk * (context - chunk / 2.0);
  const std::string shape = std::to_string(rows) + " rows of " + std::to_string(chunk) + " at " +
                            std::to_string(context) + ", 32/4 heads of 64";
  table.Add("Attention", shape, kTypeNames[static_cast<int>(dtype)], 2.0 * static_cast<double>(cache_bytes),
            4.0 * pairs * 32 * 64, [&] {
              backend.Attention(View(qkv, rows * chunk, 40 * 64), args, map, kv, View(out, rows * chunk, 32 * 64));
            });
}

void BenchRowOps(cpu::CpuBackend& backend, const Table& table) {
  constexpr int64_t kRows = 64;
  constexpr int64_t kWidth = 2048;
  std::vector<float> x = Noise(kRows * 2 * kWidth);
  std::vector<float> out(kRows * kWidth);
  const std::vector<float> weight = Noise(kWidth);
  table.Add("RmsNorm", "64 x 2048", "", kRows * kWidth * 8.0, kRows * kWidth * 4.0,
            [&] { backend.RmsNorm(View(x, kRows, kWidth), weight.data(), 1e-5f, View(out, kRows, kWidth)); });
  table.Add("SwiGlu", "64 x 2048", "", kRows * kWidth * 12.0, kRows * kWidth * 24.0,
            [&] { backend.SwiGlu(View(x, kRows, 2 * kWidth), View(out, kRows, kWidth)); });
}

void BenchSample(cpu::CpuBackend& backend, const Table& table) {
  constexpr int64_t kVocab = 151936;
  std::vector<float> logits = Noise(kVocab);
  for (float& logit : logits) logit *= 8;
  const auto run = [&](const char* name, const SampleArgs& args) {
    SampleResult result;
    table.Add(std::string("Sample, ") + name, "1 x 151936", "", kVocab * 4.0, 0, [&] {
      backend.Sample(View(logits, 1, kVocab), {&args, 1}, {&result, 1});
    });
  };
  SampleArgs args;
  run("temperature 1", args);
  args.top_p = 0.9f;
  run("top_p 0.9", args);
  args.top_p = 1;
  args.top_k = 40;
  run("top_k 40", args);
  args.temperature = 0;
  run("greedy", args);
}

int Main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : cpu::NumUsableCpus();
  cpu::Isa isa = cpu::DetectIsa();
  for (cpu::Isa known : {cpu::Isa::kPortable, cpu::Isa::kAvx2}) {
    if (argc > 2 && cpu::IsaName(known) == argv[2]) isa = std::min(isa, known);
  }
  if (threads < 1) {
    std::fprintf(stderr, "usage: weft_kernels_bench [threads] [portable|avx2|avx512]\n");
    return 64;
  }
  cpu::CpuBackend backend(threads, isa);
  const Timer timer(threads);
  const Limits limits = Probe(backend, timer, threads, isa);
  std::printf("%s, %d threads; probed: %.0f GFLOP/s FP32 FMA, %.1f GB/s read\n", std::string(IsaName(isa)).c_str(),
              threads, limits.flops / 1e9, limits.bytes_per_second / 1e9);
  const Table table(limits, timer);
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kI8}) {
    BenchLinear(backend, table, 5632, 2048, dtype);
  }
  BenchLinear(backend, table, 1536, 576, DType::kBF16);
  for (DType dtype : {DType::kBF16, DType::kI8}) {
    for (int64_t tokens : {1, 64, 512}) BenchExperts(backend, table, tokens, dtype);
  }
  BenchAttention(backend, table, 1, 4096, 1, DType::kF32);
  BenchAttention(backend, table, 16, 1024, 1, DType::kF32);
  BenchAttention(backend, table, 16, 1024, 1, DType::kBF16);
  BenchAttention(backend, table, 1, 512, 512, DType::kF32);
  BenchAttention(backend, table, 1, 4096, 256, DType::kF32);
  BenchRowOps(backend, table);
  BenchSample(backend, table);
  return 0;
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) { return weft::Main(argc, argv); }
