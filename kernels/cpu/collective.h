// What the CPU's communicators share: arguments, the sum in rank order, and the words for ranks that disagree.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/check.h"
#include "kernels/communicator.h"

namespace weft::cpu {

inline constexpr int kMaxRanks = 64;  // so that a set of ranks is a word

// The bytes of a tensor that a communicator takes.
inline size_t DenseBytes(Tensor x) {
  CHECK(x.rows >= 0 && x.cols >= 0, "a tensor has a shape");
  CHECK(x.rows <= 1 || x.row_stride == x.cols, "communicators take dense tensors");
  return static_cast<size_t>(x.rows * x.cols) * DTypeBytes(x.dtype);
}

// memcpy that may be given nothing.
inline void CopyBytes(void* to, const void* from, size_t bytes) {
  if (bytes != 0 && to != from) std::memcpy(to, from, bytes);
}

// out[i] = ((parts[0][i] + parts[1][i]) + parts[2][i]) + ...
// Reads each part once and writes out once; out may be one of the parts.
inline void SumInRankOrder(absl::Span<const float* const> parts,  // each [count]
                           float* out,                            // [count]
                           size_t count) {
  constexpr size_t kBlock = 1024;
  float sum[kBlock];
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const size_t n = std::min(kBlock, count - begin);
    std::memcpy(sum, parts[0] + begin, n * sizeof(float));
    for (const float* part : parts.subspan(1)) {
      for (size_t i = 0; i < n; ++i) sum[i] += part[begin + i];
    }
    std::memcpy(out + begin, sum, n * sizeof(float));
  }
}

// One rank's word on an op: what all ranks of the op must agree on.
struct Announcement {
  CommOp op = CommOp::kAllReduceSum;
  int root = 0;  // of Broadcast
  size_t bytes = 0;

  friend bool operator==(const Announcement&, const Announcement&) = default;
};

inline absl::Status Disagreement(int rank, const Announcement& mine, int peer, const Announcement& theirs) {
  const auto describe = [](int who, const Announcement& what) {
    const bool rooted = what.op == CommOp::kBroadcast;
    return absl::StrCat("rank ", who, " is in ", CommOpName(what.op), rooted ? absl::StrCat(" from ", what.root) : "",
                        " of ", what.bytes, " bytes");
  };
  return absl::InvalidArgumentError(absl::StrCat(describe(rank, mine), ", ", describe(peer, theirs)));
}

}  // namespace weft::cpu
