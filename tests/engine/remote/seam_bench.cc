// What it costs that ranks are processes: steps of one token of the smallest model there is, so that little else is
// left; threads and processes in turn. Prints a Markdown table; run by hand with a model directory and the weft binary.
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "engine/local_engine.h"
#include "engine/remote/remote_engine.h"
#include "tests/engine/remote/children.h"

namespace weft {
namespace {

constexpr int kSteps = 2000;
constexpr int kRounds = 5;
constexpr int kRows = 8;
constexpr int kDeaths = 50;

Batch StepOf(int64_t step) {
  Batch batch;
  batch.step = step;
  for (int row = 0; row < kRows; ++row) {
    batch.token_ids.push_back(1);
    batch.positions.push_back(static_cast<int32_t>(step % 16));
    batch.row_begin.push_back(row + 1);
    batch.slots.push_back(row);
    if (step == 0) {
      batch.slot_starts.push_back({.slot = row, .num_prompt_tokens = 1, .sampling = {.temperature = 0}, .tokens = {}});
      batch.block_updates.push_back({.slot = row, .index = 0, .block = row});
    }
    batch.sampling.push_back({.row = row, .position = step % 16 + 1});
  }
  return batch;
}

// Microseconds a step, one at a time, or with the next one submitted before.
double Measure(Engine& engine, int64_t& step, bool ahead) {
  const absl::Time start = absl::Now();
  for (int i = 0; i < kSteps; ++i) {
    engine.Submit(StepOf(step++));
    if (ahead && i == 0) continue;
    if (!engine.Collect().ok()) std::abort();
  }
  if (ahead && !engine.Collect().ok()) std::abort();
  return absl::ToDoubleMicroseconds(absl::Now() - start) / kSteps;
}

// Milliseconds from SIGKILL of a worker of an idle engine until that is known; in order.
std::vector<double> MeasureDeaths(RemoteEngines& engines) {
  std::vector<double> took;
  for (int i = 0; i < kDeaths; ++i) {
    absl::Notification told;
    engines.SetOnDeath([&told] {
      if (!told.HasBeenNotified()) told.Notify();
    });
    const auto engine = *engines.Open(0);
    const absl::Time start = absl::Now();
    kill(Children().front(), SIGKILL);
    told.WaitForNotification();
    if (engine->status().ok()) std::abort();
    took.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
    engines.SetOnDeath(nullptr);
  }
  std::sort(took.begin(), took.end());
  return took;
}

int Run(const std::string& model_dir, const std::string& binary, const std::string& version) {
  const ModelConfig config = *LoadModelConfig(model_dir);
  EngineSetup setup{.model_dir = model_dir,
                    .device = {.num_threads = 1},
                    .max_model_len = 64,
                    .max_num_seqs = kRows,
                    .max_num_batched_tokens = 64};
  setup.kv_cache_bytes = *KvCacheBytes(config, setup, 64 * kRows);
  const auto threads = (*LocalEngines::Load(config, setup, 1))->Open(0);
  RemoteOptions options{.coordinator = {.version = version}, .command = {binary, "worker"}};
  options.coordinator.log = [](absl::string_view) {};
  const auto source = RemoteEngines::Start(config, setup, options);
  auto processes = (*source)->Open(0);
  if (!processes.ok()) {
    std::fprintf(stderr, "%s\n", std::string(processes.status().message()).c_str());
    return 1;
  }
  int64_t thread_step = 0, process_step = 0;
  std::printf("| steps | threads | processes | more |\n|---|---:|---:|---:|\n");
  for (const bool ahead : {false, true}) {
    double best[2] = {1e9, 1e9};
    for (int round = 0; round < kRounds; ++round) {
      best[0] = std::min(best[0], Measure(**threads, thread_step, ahead));
      best[1] = std::min(best[1], Measure(**processes, process_step, ahead));
    }
    std::printf("| %s | %.0f us | %.0f us | %.0f us |\n", ahead ? "one submitted ahead" : "one at a time", best[0],
                best[1], best[1] - best[0]);
  }
  processes->reset();
  const std::vector<double> deaths = MeasureDeaths(**source);
  std::printf("\n%zu workers killed: known after %.1f ms in the median, %.1f ms at most\n", deaths.size(),
              deaths[deaths.size() / 2], deaths.back());
  return 0;
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: weft_seam_bench MODEL_DIR WEFT_BINARY VERSION (as `weft version` says it)\n");
    return 64;
  }
  return weft::Run(argv[1], argv[2], argv[3]);
}
