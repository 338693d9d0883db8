// Which process each rank of an engine is in, and how the ranks of a group talk.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/parallel_sizes.h"

namespace weft {

// On the wire, too: numbers stay.
enum class GroupKind {
  kNone = 0,     // a rank by itself
  kThreads = 1,  // all in one process
  kMemory = 2,   // processes of the server's host, which inherit shared memory
  kHosts = 3,    // on several hosts
};

struct PlacedRank {
  int rank = 0;
  GroupKind tensor_group = GroupKind::kNone;
  GroupKind stages = GroupKind::kNone;
};

// One worker process.
struct PlacedWorker {
  int node_rank = 0;  // its host; 0: the server's
  std::vector<PlacedRank> ranks;
};

// Hosts have equal parts of the ranks, in their order. On the server's host each rank is a process of its own; on any
// other they are threads of the one worker there. Error: InvalidArgument "num-nodes: ..." when hosts don't divide
// ranks.
absl::StatusOr<std::vector<PlacedWorker>> PlaceRanks(const ParallelSizes& sizes, int num_nodes);

// "rank 3", "ranks 4, 5".
std::string RanksOf(const PlacedWorker& worker);

}  // namespace weft
