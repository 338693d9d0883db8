// Finds a token's place in the paged cache, and its row.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace weft::cuda {

// The index into KvView::keys and values, in elements, of head `kv_head` at absolute position `position` of row `row`.
__device__ __forceinline__ int64_t KvOffset(const KvView& kv, const RowMap& rows, int row, int64_t position,
                                            int kv_head) {
  const int64_t block = rows.block_ids[rows.block_begin[row] + position / kv.block_size];
  return ((block * kv.num_kv_heads + kv_head) * kv.block_size + position % kv.block_size) * kv.head_dim;
}

// The row that token `token` of the step belongs to: the last that begins no later. Empty rows own nothing.
__device__ __forceinline__ int RowOfToken(const RowMap& rows, int64_t token) {
  int low = 0, high = rows.num_rows;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (rows.row_begin[middle] <= token ? low : high) = middle;
  }
  return low;
}

}  // namespace weft::cuda
