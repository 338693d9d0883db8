// What the ops of a group cost one rank: plain numbers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace weft {

enum class CommOp : uint8_t { kAllReduceSum, kAllGather, kBroadcast, kSend, kRecv };
inline constexpr size_t kNumCommOps = 5;

constexpr absl::string_view CommOpName(CommOp op) {
  constexpr absl::string_view kNames[kNumCommOps] = {"AllReduceSum", "AllGather", "Broadcast", "Send", "Recv"};
  return static_cast<size_t>(op) < kNumCommOps ? kNames[static_cast<size_t>(op)] : "an unknown op";
}

// What one kind of op has cost this rank since the group was made. Ops that did nothing don't count.
struct CommOpStats {
  int64_t calls = 0;
  int64_t bytes = 0;       // of this rank's x
  absl::Duration waiting;  // for peers
  absl::Duration total;
};

struct CommStats {
  std::array<CommOpStats, kNumCommOps> ops;
  const CommOpStats& operator[](CommOp op) const { return ops[static_cast<size_t>(op)]; }

  absl::Duration waiting() const {  // in all ops
    absl::Duration sum;
    for (const CommOpStats& op : ops) sum += op.waiting;
    return sum;
  }
};

}  // namespace weft
