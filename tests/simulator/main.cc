// weft_sim: runs seeds through the simulator. A seed that fails ends the process, says its number, and replays.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "tests/simulator/plan.h"
#include "tests/simulator/world.h"

namespace weft {
namespace {

struct Options {
  uint64_t first_seed = 1;
  uint64_t num_seeds = 1000;
  bool traces = false;
  bool repeats = false;
  std::string seeds_file;
  unsigned timeout_s = 60;
};

char failure[200];  // what the handler of a failing seed says; made beforehand, since it may not allocate

void OnFailure(int signal) {
  const char* const why = signal == SIGALRM ? "weft sim: no end in sight\n" : "";
  (void)!write(STDERR_FILENO, why, std::char_traits<char>::length(why));
  (void)!write(STDERR_FILENO, failure, std::char_traits<char>::length(failure));
  _exit(1);
}

Totals RunSeed(uint64_t seed, Metrics& metrics, const Options& options) {
  std::snprintf(
      failure, sizeof failure, "weft sim: seed %llu failed; replay: ./weft sim --first-seed %llu --seeds 1 --trace\n",
      static_cast<unsigned long long>(seed), static_cast<unsigned long long>(seed));  // NOLINT: printf's types
  alarm(options.timeout_s);
  const Plan plan = DrawPlan(seed);
  const Totals totals = World(plan, metrics, options.traces).Run();
  if (options.repeats && World(plan, metrics, false).Run().digest != totals.digest) {
    std::fprintf(stderr, "weft sim: seed %llu ran differently the second time\n",
                 static_cast<unsigned long long>(seed));  // NOLINT
    std::abort();
  }
  return totals;
}

std::vector<uint64_t> Seeds(const Options& options) {
  std::vector<uint64_t> seeds;
  if (options.seeds_file.empty()) {
    for (uint64_t i = 0; i < options.num_seeds; ++i) seeds.push_back(options.first_seed + i);
    return seeds;
  }
  std::ifstream file(options.seeds_file);
  for (std::string line; std::getline(file, line);) {  // "NUMBER  what it showed", or a comment
    if (!line.empty() && line[0] != '#') seeds.push_back(std::strtoull(line.c_str(), nullptr, 10));
  }
  return seeds;
}

void PrintSummary(const Totals& totals, double seconds) {
  const auto n = [](int64_t value) { return static_cast<long long>(value); };  // NOLINT: printf's types
  std::printf(
      "weft sim: %lld seeds, %lld events, %lld steps; %lld requests: %lld stop, %lld length, %lld cancelled, %lld "
      "error; "
      "%lld groups refused; preempted: %lld for blocks, %lld for priority, %lld for fairness; %lld deaths; "
      "%lld of %lld prompt tokens taken up; %.0f virtual s in %.1f s; %.2f million events a minute; digest %016llx\n",
      n(totals.num_seeds), n(totals.num_events), n(totals.num_steps), n(totals.num_requests), n(totals.num_finished[0]),
      n(totals.num_finished[1]), n(totals.num_finished[2]), n(totals.num_finished[3]), n(totals.num_refused),
      n(totals.num_preemptions[0]), n(totals.num_preemptions[1]), n(totals.num_preemptions[2]), n(totals.num_deaths),
      n(totals.num_cached_tokens), n(totals.num_prompt_tokens), static_cast<double>(totals.virtual_us) / 1e6, seconds,
      static_cast<double>(totals.num_events) / seconds * 60 / 1e6,
      static_cast<unsigned long long>(totals.digest));  // NOLINT
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("The scheduler in a deterministic simulation.", "weft sim");
  app.add_option("--seeds", options.num_seeds, "how many")->capture_default_str();
  app.add_option("--first-seed", options.first_seed, "the first of them")->capture_default_str();
  app.add_option("--seeds-file", options.seeds_file, "run the seeds that stand in this file instead");
  app.add_option("--timeout", options.timeout_s, "seconds after which a seed counts as stuck")->capture_default_str();
  app.add_flag("--trace", options.traces, "print what happens");
  app.add_flag("--repeat", options.repeats, "run each twice, and compare");
  CLI11_PARSE(app, argc, argv);
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) std::signal(signal, OnFailure);
  if (options.traces) std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const auto begin = std::chrono::steady_clock::now();
  Metrics metrics;
  Totals totals;
  for (const uint64_t seed : Seeds(options)) totals.Add(RunSeed(seed, metrics, options));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  PrintSummary(totals, seconds.count());
  return 0;
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) { return weft::Main(argc, argv); }
