// One request while a replica runs it: its tokens, how far they are computed, and what it holds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "scheduler/kv_block_pool.h"
#include "scheduler/request.h"

namespace weft {

// Owned by a Scheduler. Counts obey
//
//   0 <= num_computed <= num_scheduled <= tokens.size() + num_pending
//
//   tokens         prompt | output so far
//   num_computed   ------>|            keys and values are in the cache
//   num_scheduled  ---------->|        ... or in a step that is in flight
//   num_pending                 |-->   drawn in flight: a place, not yet a token
struct Sequence {
  Sequence(std::unique_ptr<Request> r, KvBlockPool& pool)
      : request(std::move(r)), tokens(request->prompt), prefix_keys(request->prefix_keys), blocks(pool) {
    const Progress& progress = request->progress;
    // So that a step seldom allocates; a request may ask for far more tokens than it will draw.
    constexpr int32_t kAhead = 1024;
    const auto room = static_cast<size_t>(std::min(request->stop.max_tokens, kAhead)) + progress.output.size();
    tokens.reserve(tokens.size() + room);
    tokens.insert(tokens.end(), progress.output.begin(), progress.output.end());
    const size_t num_blocks = tokens.capacity() / static_cast<size_t>(pool.block_size()) + 1;
    blocks.Reserve(num_blocks);
    if (request->prefix_scope.has_value()) prefix_keys.reserve(num_blocks);
    num_scored = progress.num_scored;
  }

  int num_prompt() const { return static_cast<int>(request->prompt.size()); }
  int num_known() const { return static_cast<int>(tokens.size()); }
  int num_output() const { return num_known() - num_prompt(); }
  // Tokens, known or drawn in flight, that no step has been given yet. None once the last token is drawn: nothing comes
  // after it, so its keys and values are never needed.
  int num_uncomputed() const {
    if (num_output() + num_pending >= request->stop.max_tokens) return 0;
    return num_known() + num_pending - num_scheduled;
  }

  // Prompt tokens whose score comes with the next `num_tokens` computed ones: a computed token tells how likely the one
  // after it was. What was scored before a preemption is not scored again.
  int NumScores(int num_tokens) const {
    if (!request->sampling.score_prompt) return 0;
    const int end = std::min(num_scheduled + num_tokens, num_prompt() - 1);
    return std::max(0, end - std::max(num_scheduled, num_scored));
  }
  // The most of `num_tokens` that brings no more than `max_scores` scores.
  int LimitByScores(int num_tokens, int max_scores) const {
    if (NumScores(num_tokens) <= max_scores) return num_tokens;
    return std::max(num_scheduled, num_scored) + max_scores - num_scheduled;
  }

  // Its request again, with all that it has; the sequence is of no use any more.
  std::unique_ptr<Request> TakeRequest() {
    Progress& progress = request->progress;
    progress.output.assign(tokens.begin() + num_prompt(), tokens.end());
    progress.num_scored = num_scored;
    request->prefix_keys = std::move(prefix_keys);
    return std::move(request);
  }

  std::unique_ptr<Request> request;
  std::vector<int32_t> tokens;
  std::vector<PrefixKey> prefix_keys;  // of the first full blocks of `tokens`; grows as they fill
  int num_computed = 0;
  int num_scheduled = 0;
  int num_pending = 0;
  int num_in_flight = 0;  // steps
  int64_t last_step = -1;
  int num_scored = 0;  // prompt tokens whose score the sink has; the first token has none
  BlockTable blocks;
  int num_registered = 0;   // of its blocks, from the first on: offered to the pool, or taken up from it
  int num_sent_blocks = 0;  // of its blocks, from the first on: in the worker's table
  int32_t slot = -1;
  bool slot_started = false;  // the engine knows the slot's sampling parameters

  // Why it stops running once no step in flight uses its blocks any more.
  enum class Leaving { kNo, kPreempted, kFinished };
  Leaving leaving = Leaving::kNo;
};

}  // namespace weft
