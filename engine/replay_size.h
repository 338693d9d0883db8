// Sizes of steps that a device records.
#pragma once

#include <algorithm>

namespace weft {

// A step of `num_tokens` is filled up to this size, so that few sizes are recorded and few rows computed for nothing:
// 1, 2, 4, then multiples of 8, from 256 on of 32; `most` at most, which is >= num_tokens.
constexpr int ReplaySize(int num_tokens, int most) {
  const int step = num_tokens > 256 ? 32 : num_tokens > 4 ? 8 : num_tokens > 2 ? 4 : 1;
  return std::min(most, (num_tokens + step - 1) / step * step);
}

}  // namespace weft
