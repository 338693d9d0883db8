// The candidates of one row that all ranks have gathered, rank by rank.
#pragma once

#include <cstddef>

#include "absl/types/span.h"
#include "kernels/sampling_shards.h"

namespace weft::cuda {

class RowCandidates {
 public:
  // all: `stride` of each rank, of which the row's begin at `begin`.
  RowCandidates(absl::Span<const DrawCandidate> all, size_t stride, size_t begin, const RowDraw& draw)
      : all_(all), stride_(stride), begin_(begin), draw_(draw) {}

  size_t num_ranks() const { return stride_ == 0 ? 0 : all_.size() / stride_; }
  // For the draw, then for log-probabilities; a token of -1 is none.
  absl::Span<const DrawCandidate> Best(size_t rank) const {
    return all_.subspan(rank * stride_ + begin_, static_cast<size_t>(draw_.num_best));
  }
  absl::Span<const DrawCandidate> Top(size_t rank) const {
    return all_.subspan(rank * stride_ + begin_ + static_cast<size_t>(draw_.num_best),
                        static_cast<size_t>(draw_.num_top));
  }

 private:
  absl::Span<const DrawCandidate> all_;
  size_t stride_, begin_;
  RowDraw draw_;
};

}  // namespace weft::cuda
