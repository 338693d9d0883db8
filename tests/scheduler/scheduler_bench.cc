// What the scheduler costs the host. Prints a Markdown table; run by hand.
#include <chrono>
#include <cstdio>
#include <memory>
#include <vector>

#include "scheduler/scheduler.h"
#include "tests/fakes/recording_sink.h"

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

// Runs a step whose engine takes no time; returns what Schedule and Commit took.
double Step(Scheduler& scheduler) {
  const auto begin = std::chrono::steady_clock::now();
  const Batch batch = scheduler.Schedule();
  double cost = Microseconds(begin);
  StepResult result{.step = batch.step};
  result.tokens.assign(batch.sampling.size(), SampledToken{.token = 5});
  const auto middle = std::chrono::steady_clock::now();
  scheduler.Commit(result);
  cost += Microseconds(middle);
  scheduler.TakeEvents();
  return cost;
}

void BenchDecode(int num_sequences, int context) {
  const EngineLimits limits{.max_model_len = context + 1000,
                            .num_blocks = num_sequences * (context + 1000) / kBlockSize,
                            .block_size = kBlockSize,
                            .max_num_seqs = num_sequences,
                            .max_num_batched_tokens = 8192,
                            .vocab_size = 1000};
  const SystemClock clock;
  Scheduler scheduler(limits, clock);
  for (int i = 0; i < num_sequences; ++i) scheduler.Add(MakeRequest(i, context, 900));
  while (scheduler.stats().num_tokens_sampled < num_sequences * 20) Step(scheduler);
  double least = 1e9, sum = 0;
  constexpr int kSteps = 500;
  for (int i = 0; i < kSteps; ++i) {
    const double cost = Step(scheduler);
    least = std::min(least, cost);
    sum += cost;
  }
  std::printf("| a step of %d sequences at %d tokens | %.0f us | %.0f us |\n", num_sequences, context, least,
              sum / kSteps);
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
  Scheduler scheduler(limits, clock);
  scheduler.Add(MakeRequest(0, kTokens, 2));
  while (scheduler.HasWork()) Step(scheduler);
  double least = 1e9, sum = 0;
  constexpr int kTimes = 50;
  for (int i = 1; i <= kTimes; ++i) {
    std::unique_ptr<Request> request = MakeRequest(0, kTokens, 2);
    request->id = i;
    scheduler.Add(std::move(request));
    const double cost = Step(scheduler);
    least = std::min(least, cost);
    sum += cost;
    while (scheduler.HasWork()) Step(scheduler);
  }
  std::printf("| the first step of a prompt of %d tokens, all cached but the last | %.0f us | %.0f us |\n", kTokens,
              least, sum / kTimes);

  const std::vector<int32_t> prompt = MakeRequest(0, kTokens, 2)->prompt;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kTimes; ++i) PrefixKeys(ScopeKey("bench", "", ""), prompt, kBlockSize);
  std::printf("| its keys, made by the front end | | %.0f us |\n", Microseconds(begin) / kTimes);
}

}  // namespace
}  // namespace weft

int main() {
  std::printf("| what | least | mean |\n|---|---:|---:|\n");
  for (const int context : {256, 4096, 16384}) weft::BenchDecode(256, context);
  weft::BenchPrefix();
}
