// Finds a token's place in the paged cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/tensor.h"

namespace weft::cpu {

// The index into KvView::keys and values, in elements, of head `kv_head` at absolute position `position` of row `row`.
inline int64_t KvOffset(const KvView& kv, const RowMap& rows, int row, int64_t position, int kv_head) {
  const int64_t block = rows.block_ids[rows.block_begin[row] + position / kv.block_size];
  return ((block * kv.num_kv_heads + kv_head) * kv.block_size + position % kv.block_size) * kv.head_dim;
}

// The row that token `token` of the step belongs to. Empty rows own nothing.
inline int RowOfToken(const RowMap& rows, int64_t token) {
  const int32_t* const end = rows.row_begin + rows.num_rows + 1;
  return static_cast<int>(std::upper_bound(rows.row_begin, end, token) - rows.row_begin) - 1;
}

}  // namespace weft::cpu
