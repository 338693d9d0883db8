#include "engine/remote/placement.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace weft {
namespace {

// Of the ranks first, first + stride, ... (count of them).
GroupKind KindOf(int first, int stride, int count, int ranks_per_node) {
  if (count == 1) return GroupKind::kNone;
  const int first_node = first / ranks_per_node;
  const int last_node = (first + (count - 1) * stride) / ranks_per_node;
  if (first_node != last_node) return GroupKind::kHosts;
  return first_node == 0 ? GroupKind::kMemory : GroupKind::kThreads;
}

}  // namespace

absl::StatusOr<std::vector<PlacedWorker>> PlaceRanks(const ParallelSizes& sizes, int num_nodes) {
  const int num_ranks = sizes.num_ranks();
  if (num_ranks % num_nodes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num-nodes: ", num_nodes, " hosts don't divide tensor-parallel-size ", sizes.tensor,
                     " x pipeline-parallel-size ", sizes.pipeline, " = ", num_ranks, " ranks"));
  }
  const int per_node = num_ranks / num_nodes;
  std::vector<PlacedWorker> workers;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const int node = rank / per_node;
    const bool is_first_there = rank % per_node == 0;
    if (node == 0 || is_first_there) workers.push_back({.node_rank = node, .ranks = {}});
    const int tp_rank = rank % sizes.tensor;
    workers.back().ranks.push_back({.rank = rank,
                                    .tensor_group = KindOf(rank - tp_rank, 1, sizes.tensor, per_node),
                                    .stages = KindOf(tp_rank, sizes.tensor, sizes.pipeline, per_node)});
  }
  return workers;
}

std::string RanksOf(const PlacedWorker& worker) {
  return absl::StrCat(worker.ranks.size() == 1 ? "rank " : "ranks ",
                      absl::StrJoin(worker.ranks, ", ", [](std::string* out, const PlacedRank& placed) {
                        absl::StrAppend(out, placed.rank);
                      }));
}

}  // namespace weft
