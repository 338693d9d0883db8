// What the scheduler tells about itself: plain numbers, copied out once a step, so that nobody who reads them ever
// takes the scheduler's lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace weft {

// A histogram with fixed upper bounds; the last bucket is everything above.
template <size_t kNumBounds>
struct FixedHistogram {
  std::array<double, kNumBounds> bounds{};
  std::array<int64_t, kNumBounds + 1> counts{};
  double sum = 0;

  void Observe(double value) {
    size_t bucket = 0;
    while (bucket < kNumBounds && value > bounds[bucket]) ++bucket;
    ++counts[bucket];
    sum += value;
  }
};

inline constexpr std::array<double, 19> kShortTimeBounds = {.001, .002, .003, .004, .005, .0075, .01, .015, .02, .03,
                                                            .04,  .05,  .075, .1,   .15,  .25,   .5,  1,    2.5};
inline constexpr std::array<double, 22> kLongTimeBounds = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                                           1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
inline constexpr std::array<double, 12> kHostTimeBounds = {.00001, .00002, .00005, .0001, .00015, .0002,
                                                           .0005,  .001,   .002,   .005,  .01,    .05};
inline constexpr std::array<double, 12> kSizeBounds = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048};

// Why a sequence had to give up its row and its blocks.
enum class PreemptionReason { kBlocks, kPriority, kFairness };
inline constexpr int kNumPreemptionReasons = 3;

// One replica.
struct Stats {
  int64_t num_running = 0;
  int64_t num_blocks = 0;
  int64_t num_free_blocks = 0;    // what a sequence can get; the cached are among them
  int64_t num_cached_blocks = 0;  // nobody's, but their content may be taken up
  int64_t num_evictions = 0;      // of cached blocks
  int64_t num_prompt_tokens = 0;  // of sequences that began to run
  int64_t num_cached_tokens = 0;  // of these, computed for others before
  std::array<int64_t, kNumPreemptionReasons> num_preemptions{};
  int64_t num_steps = 0;
  int64_t num_tokens_computed = 0;  // prompt tokens, those recomputed after a preemption, and drawn ones fed back
  int64_t num_tokens_sampled = 0;
  FixedHistogram<19> step_seconds{kShortTimeBounds};
  FixedHistogram<12> batch_rows{kSizeBounds};
  FixedHistogram<12> batch_tokens{kSizeBounds};
  FixedHistogram<22> queue_seconds{kLongTimeBounds};      // from arrival to the first step that computes the request
  FixedHistogram<12> scheduler_seconds{kHostTimeBounds};  // of Schedule() and Commit() together, a step
  int64_t max_running = 0;         // sequences at once, as the bound on a step's time leaves them; see RowPacer
  int64_t max_prefill_tokens = 0;  // a step may compute so many while others decode; see PrefillPacer

  double KvCacheUsage() const {
    return num_blocks == 0 ? 0.0 : 1.0 - static_cast<double>(num_free_blocks) / static_cast<double>(num_blocks);
  }
};

// The fair queue.
struct QueueStats {
  struct Tenant {
    std::string name;
    std::array<int64_t, 3> num_waiting{};  // by Priority
    int64_t num_running = 0;
    bool has_policy = false;  // of its own
  };
  std::vector<Tenant> tenants;  // those that wait or run, in no order
  double fairness_gap = 0;      // between the most and the least served that wait and may run, in tokens over weight
};

}  // namespace weft
