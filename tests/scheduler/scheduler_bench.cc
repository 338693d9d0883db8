// What the scheduler costs the host. Prints a Markdown table; run by hand.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "scheduler/scheduler.h"
#include "tests/fakes/recording_sink.h"

namespace {
int64_t num_allocations = 0;
}  // namespace

void* operator new(size_t bytes) {
  ++num_allocations;
  if (void* const memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace weft {
namespace {

constexpr int kBlockSize = 16;

double Microseconds(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
}

class NullSink final : public TokenSink {
 public:
  void Start(int64_t) override {}
  void Push(const SampledToken&) override {}
  void Finish(const FinishEvent&) override {}
  bool Cancelled() const override { return false; }
};

std::unique_ptr<Request> MakeRequest(int64_t id, int num_tokens, int max_tokens) {
  auto request = std::make_unique<Request>();
  request->id = id;
  for (int i = 0; i < num_tokens; ++i) request->prompt.push_back(static_cast<int32_t>((id * 31 + i * 7) % 1000));
  request->stop.max_tokens = max_tokens;
  request->prefix_scope = ScopeKey("bench", "", "");
  request->prefix_keys = PrefixKeys(*request->prefix_scope, request->prompt, kBlockSize);
  request->sink = std::make_shared<NullSink>();
  return request;
}

struct StepCost {
  double microseconds = 0;
  int64_t allocations = 0;
};

// Runs a step whose engine takes no time; returns what Schedule and Commit took.
StepCost Step(Scheduler& scheduler, StepResult& result) {
  StepCost cost;
  int64_t allocations = num_allocations;
  auto begin = std::chrono::steady_clock::now();
  const Batch& batch = scheduler.Schedule();
  cost.microseconds += Microseconds(begin);
  cost.allocations += num_allocations - allocations;
  result.step = batch.step;
  result.tokens.assign(batch.sampling.size(), SampledToken{.token = 5});
  allocations = num_allocations;
  begin = std::chrono::steady_clock::now();
  const bool ok = scheduler.Commit(result).ok();
  cost.microseconds += Microseconds(begin);
  cost.allocations += num_allocations - allocations;
  scheduler.ClearEvents();
  if (!ok) std::abort();
  return cost;
}

void Add(Scheduler& scheduler, std::unique_ptr<Request> request) {
  if (scheduler.Judge(*request) != Verdict::kTake) std::abort();
  scheduler.Add(std::move(request));
}

void BenchDecode(int num_sequences, int context) {
  const EngineLimits limits{.max_model_len = context + 1000,
                            .num_blocks = num_sequences * (context + 1000) / kBlockSize,
                            .block_size = kBlockSize,
                            .max_num_seqs = num_sequences,
                            .max_num_batched_tokens = 8192,
                            .vocab_size = 1000};
  const SystemClock clock;
  Scheduler scheduler(limits, {.max_prefill_share = 1.0}, clock);
  StepResult result;
  for (int i = 0; i < num_sequences; ++i) {
    while (scheduler.Judge(*MakeRequest(i, context, 900)) != Verdict::kTake) Step(scheduler, result);
    scheduler.Add(MakeRequest(i, context, 900));
  }
  for (int i = 0; i < 50; ++i) Step(scheduler, result);
  double least = 1e9, sum = 0;
  int64_t allocations = 0;
  constexpr int kSteps = 300;
  for (int i = 0; i < kSteps; ++i) {
    const StepCost cost = Step(scheduler, result);
    least = std::min(least, cost.microseconds);
    sum += cost.microseconds;
    allocations += cost.allocations;
  }
  std::printf("| a step of %d sequences at %d tokens | %.0f us | %.0f us | %.3f |\n", num_sequences, context, least,
              sum / kSteps, static_cast<double>(allocations) / kSteps);
}

void BenchPrefix() {
  constexpr int kTokens = 100'000;
  const EngineLimits limits{.max_model_len = kTokens + 100,
                            .num_blocks = 2 * kTokens / kBlockSize,
                            .block_size = kBlockSize,
                            .max_num_seqs = 4,
                            .max_num_batched_tokens = 8192,
                            .vocab_size = 1000};
  const SystemClock clock;
  Scheduler scheduler(limits, {}, clock);
  StepResult result;
  Add(scheduler, MakeRequest(0, kTokens, 2));
  while (scheduler.HasWork()) Step(scheduler, result);
  double least = 1e9, sum = 0;
  constexpr int kTimes = 50;
  for (int i = 1; i <= kTimes; ++i) {
    std::unique_ptr<Request> request = MakeRequest(0, kTokens, 2);
    request->id = i;
    const auto begin = std::chrono::steady_clock::now();
    Add(scheduler, std::move(request));
    const double cost = Microseconds(begin) + Step(scheduler, result).microseconds;
    least = std::min(least, cost);
    sum += cost;
    while (scheduler.HasWork()) Step(scheduler, result);
  }
  std::printf("| admission and first step of a prompt of %d tokens, all cached but the last | %.0f us | %.0f us | |\n",
              kTokens, least, sum / kTimes);

  const std::vector<int32_t> prompt = MakeRequest(0, kTokens, 2)->prompt;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kTimes; ++i) PrefixKeys(ScopeKey("bench", "", ""), prompt, kBlockSize);
  std::printf("| its keys, made by the front end | | %.0f us | |\n", Microseconds(begin) / kTimes);
}

// What the cache costs a prompt that finds nothing there: its keys, its look-up, its registration, and the eviction of
// others. A pool that is full, so that each block is somebody's.
void BenchNoHits() {
  constexpr int kTokens = 8000;
  const EngineLimits limits{.max_model_len = kTokens + 100,
                            .num_blocks = 3 * kTokens / kBlockSize,
                            .block_size = kBlockSize,
                            .max_num_seqs = 4,
                            .max_num_batched_tokens = 512,
                            .vocab_size = 1000};
  const SystemClock clock;
  double nanoseconds[2] = {1e9, 1e9};
  for (int i = 0; i < 60; ++i) {
    const bool cached = i % 2 == 0;
    static Scheduler schedulers[2] = {{limits, {}, clock}, {limits, {}, clock}};
    Scheduler& scheduler = schedulers[cached ? 1 : 0];
    StepResult result;
    auto request = std::make_unique<Request>();
    request->id = i;
    for (int t = 0; t < kTokens; ++t) request->prompt.push_back((i * 7919 + t * 31) % 1000);
    request->stop.max_tokens = 1;
    request->sink = std::make_shared<NullSink>();
    const auto begin = std::chrono::steady_clock::now();
    if (cached) {
      request->prefix_scope = ScopeKey("bench", "", "");
      request->prefix_keys = PrefixKeys(*request->prefix_scope, request->prompt, kBlockSize);
    }
    Add(scheduler, std::move(request));
    while (scheduler.HasWork()) Step(scheduler, result);
    double& least = nanoseconds[cached ? 1 : 0];
    least = std::min(least, 1000 * Microseconds(begin) / kTokens);
  }
  std::printf("| a prompt token, without the prefix cache | %.4f us | | |\n", nanoseconds[0] / 1000);
  std::printf("| a prompt token, with it, but no hit | %.4f us | | |\n", nanoseconds[1] / 1000);
}

}  // namespace
}  // namespace weft

int main() {
  std::printf("| what | least | mean | heap allocations a step |\n|---|---:|---:|---:|\n");
  for (const int context : {256, 4096, 16384}) weft::BenchDecode(256, context);
  weft::BenchPrefix();
  weft::BenchNoHits();
}
