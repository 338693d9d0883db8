// One request while it runs: its tokens, how far they are computed, and what it holds.
#pragma once

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
      : request(std::move(r)), tokens(request->prompt), blocks(pool) {}

  int num_prompt() const { return static_cast<int>(request->prompt.size()); }
  int num_known() const { return static_cast<int>(tokens.size()); }
  int num_output() const { return num_known() - num_prompt(); }
  // Tokens, known or drawn in flight, that no step has been given yet. None once the last token is drawn: nothing comes
  // after it, so its keys and values are never needed.
  int num_uncomputed() const {
    if (num_output() + num_pending >= request->stop.max_tokens) return 0;
    return num_known() + num_pending - num_scheduled;
  }

  std::unique_ptr<Request> request;
  std::vector<int32_t> tokens;
  int num_computed = 0;
  int num_scheduled = 0;
  int num_pending = 0;
  int num_in_flight = 0;  // steps
  BlockTable blocks;
  int32_t slot = -1;          // -1: none
  bool slot_started = false;  // the engine knows the slot's sampling parameters
  bool was_scheduled = false;

  // Why it stops running once no step in flight uses its blocks any more.
  enum class Leaving { kNo, kPreempted, kFinished };
  Leaving leaving = Leaving::kNo;
};

}  // namespace weft
