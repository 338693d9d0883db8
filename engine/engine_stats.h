// What an engine tells about its ranks: plain numbers, read while it works and without slowing it down.
//
// Everything counts from when the rank was ready, and only grows, but for what is said to be a size. README.md,
// "Telemetry", says what to make of it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "kernels/comm_stats.h"

namespace weft {

struct RankStats {
  int stage = 0;
  int tp_rank = 0;  // within the stage

  // A rank's time is busy, waiting in one of two ways, or idle. What a step took is told when it ends; so the four lag
  // behind the clock by the step under way.
  absl::Duration busy;                // in a step: it computes, or copies what is exchanged
  absl::Duration waiting_in_stage;    // in a step: for the other ranks of the stage (tensor parallelism)
  absl::Duration waiting_for_stages;  // in a step: for another stage's activations or tokens, or for room to send
  absl::Duration idle;                // between steps: none was there to begin
  int64_t num_steps = 0;

  CommStats tensor_group;  // the rank's ops with its stage
  CommStats stages;        // and with the other stages

  int64_t weight_bytes = 0;    // a size. Replicas of one process share their weights
  int64_t kv_cache_bytes = 0;  // a size, whatever is in use of it
  int first_expert = 0;        // not a count: expert_tokens begins with it
  // [experts of the rank] how many tokens each has got, summed over the rank's layers; none in a dense model. Up to
  // kExpertLoadPeriod older than the rest.
  std::vector<int64_t> expert_tokens;

  // The stage had its input, and was at work.
  absl::Duration in_stage() const { return busy + waiting_in_stage; }
};

inline constexpr absl::Duration kExpertLoadPeriod = absl::Milliseconds(250);

struct EngineStats {
  absl::Duration with_work;      // time with at least one batch in flight, from its Submit to its Collect
  std::vector<RankStats> ranks;  // by rank; none where an engine doesn't count
};

// What `later` counted after `earlier`: all of it where that is of another engine.
EngineStats Since(const EngineStats& earlier, const EngineStats& later);

// The ratios below are of a period. Each is what it is when nothing is wrong where nothing was counted.

// 0 .. 1: the share of the stages' time, while the engine had work, in which they weren't at work: 1 - the sum of
// in_stage() / (ranks x with_work). 0 is best.
double BubbleRatio(const EngineStats& period);

// >= 1: the slowest stage's time at work over the mean stage's. A pipeline is as fast as its slowest stage.
double StageImbalance(const EngineStats& period);

// >= 1: the tokens of the expert with the most over those of the mean expert, summed over layers.
double ExpertImbalance(const EngineStats& period);

}  // namespace weft
