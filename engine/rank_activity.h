// What a rank does just now, for whoever wonders why a step takes so long.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/communicator.h"

namespace weft {

struct RankActivity {
  int rank = 0;
  int64_t step = -1;  // that it is in, or was in last; -1: none yet
  bool in_step = false;
  std::string group;             // "tensor group" or "stages": in whose op it waits
  std::optional<CommWait> wait;  // for other ranks, in the middle of an op
};

// One line: "rank 0 waits for member 1 of its tensor group in step 7, AllReduceSum 812 (64 bytes) for 5.2 s".
std::string Describe(const RankActivity& activity);

}  // namespace weft
