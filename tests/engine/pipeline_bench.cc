// What a pipeline loses: two stages that cost the same, one thread each, with as many batches in flight as the engine
// takes, and with one only. Prints a Markdown table; run by hand, on two quiet cores: the last column tells whether
// they were.
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_format.h"
#include "tests/engine/pipeline_run.h"

namespace weft {
namespace {

void Bench(int num_repeats, int num_steps) {
  absl::PrintF(
      "| hidden size | batches in flight | sequences a batch | a step | bubble by metric | by trace "
      "| lost to uneven steps | lost by two threads that share nothing | stage imbalance | waiting for a core |\n");
  absl::PrintF("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
  for (int repeat = 0; repeat < num_repeats; ++repeat) {
    for (const int hidden_size :
         {256, 1024}) {  // steps of milliseconds, and as long as those of models that people use
      for (const int max_in_flight : {4, 2, 1}) {
        for (const int num_sequences : {8, 64}) {
          const PipelineRunOptions options{.hidden_size = hidden_size,
                                           .num_sequences = num_sequences,
                                           .num_steps = hidden_size > 256 ? num_steps / 2 : num_steps,
                                           .max_in_flight = max_in_flight};
          const PipelineRun run = RunPipeline(options);
          const absl::Duration step = run.stats.with_work / options.num_steps;
          const absl::Duration of_a_stage = max_in_flight > 1 ? step : step / 2;
          absl::PrintF("| %d | %d | %d | %.2f ms | %.1f %% | %.1f %% | %.1f %% | %.1f %% | %.3f | %.1f %% |\n",
                       hidden_size, max_in_flight, num_sequences / 2, absl::ToDoubleMilliseconds(step),
                       100 * BubbleRatio(run.stats), 100 * run.bubble_by_trace, 100 * run.uneven,
                       100 * LostToTheMachine(of_a_stage, options.num_steps), StageImbalance(run.stats),
                       100 * run.without_core);
          std::fflush(stdout);
        }
      }
    }
  }
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {  // [REPEATS [STEPS]]
  weft::Bench(argc > 1 ? std::atoi(argv[1]) : 1, argc > 2 ? std::atoi(argv[2]) : 200);
}
