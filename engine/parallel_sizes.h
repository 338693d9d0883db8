// What a user may choose about parallelism within a replica. Apart from parallel_plan.h, so that whoever only chooses
// sees no model.
#pragma once

#include <vector>

namespace weft {

struct ParallelSizes {
  int tensor = 1;           // ranks that share each layer
  int pipeline = 1;         // stages of contiguous layers
  int expert = 1;           // parts into which experts are spread; divides `tensor`: tensor / expert ranks share one
  std::vector<int> layers;  // of each stage; empty: balanced by cost

  int num_ranks() const { return tensor * pipeline; }
};

}  // namespace weft
