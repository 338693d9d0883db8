// TENSOR PARALLELISM: which part of each weight is a rank's, and the only AllReduce and AllGather.
//
// After Megatron-LM (arXiv 1909.08053): a block is a column-parallel linear (each rank has some of the outputs: heads,
// or columns of the MLP), something done to each of these by itself, and a row-parallel linear (each rank has the
// inputs that it has computed), whose outputs are sums over the ranks. So a block costs one AllReduce of [T, H]. The
// embedding and the output head are split by tokens of the vocabulary.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "engine/model_config.h"
#include "engine/parallel_plan.h"
#include "kernels/backend.h"
#include "kernels/communicator.h"
#include "kernels/sampling_shards.h"
#include "kernels/tensor.h"

namespace weft {

// A rank's attention heads. Each of its key-value heads serves equally many of its query heads, next to each other.
// Where a rank's queries need no whole number of key-value heads, or there are fewer of these than ranks, ranks keep
// copies.
struct HeadShard {
  Range heads;                // query heads
  std::vector<int> kv_heads;  // the model's, in the order of the rank's queries; each serves heads.count / size of them
};
HeadShard HeadsOf(const ModelConfig& config, const ParallelPlan& plan);

// One rank's end of its tensor-parallel group. Owned by a Model, used by its worker's thread only.
class TensorParallel {
 public:
  // `group` is null for a rank by itself. Both outlive this.
  TensorParallel(const ParallelPlan& plan, Backend& backend, Communicator* group)
      : rank_(plan.tp_rank), size_(plan.tp_size), backend_(&backend), group_(group) {}

  // out = this rank's columns of x W^T + b.                                     x: [T, in], out: [T, out of the rank]
  void ColumnParallel(Tensor x, const Weight& weight, Tensor out) const { backend_->Linear(x, weight, out); }

  // out = the sum over ranks of x W^T + b; only rank 0 has a bias.              x: [T, in of the rank], out: [T, out]
  void RowParallel(Tensor x, const Weight& weight, Tensor out) const;

  // x = the sum over ranks of x.                                                                          x: [T, H]
  void SumOverRanks(Tensor x) const;

  // out[t] = row token_ids[t] of a table whose rows are spread over the ranks.                           out: [T, H]
  void Embed(const int32_t* token_ids, int32_t vocab_size, const Weight& table, Tensor out) const;

  // Draws as Backend::Sample does, of rows whose columns are spread over the ranks; every rank gets every result. What
  // travels are candidates (sampling_shards.h), not logits. Where the group has failed, results mean nothing.
  //                                                                             logits: [R, vocab of the rank]
  void Sample(Tensor logits, int32_t vocab_size, absl::Span<const SampleArgs> args,
              absl::Span<SampleResult> results) const;

 private:
  std::vector<RowSummary> Summarize(Tensor logits, int32_t first_token, absl::Span<const SampleArgs> args) const;
  std::vector<DrawCandidate> GatherCandidates(Tensor logits, int32_t first_token, absl::Span<const SampleArgs> args,
                                              absl::Span<const RowSummary> rows, absl::Span<const RowDraw> draws) const;

  int rank_;
  int size_;
  Backend* backend_;
  Communicator* group_;
};

}  // namespace weft
