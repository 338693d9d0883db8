// Bounds on what an HTTP client may send that no operator needs to set. The others are in HttpOptions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace weft {

inline constexpr size_t kMaxRequestLineBytes = 8 << 10;
inline constexpr int kMaxHeaderLines = 100;
inline constexpr int64_t kMaxChunks = 65536;
inline constexpr size_t kMaxInputBytes = 64 << 10;  // read but not yet parsed: pipelined requests, a chunk's header
inline constexpr int64_t kMinBodyBytesPerSecond = 1024;
inline constexpr int kSendBufferBytes = 64 << 10;  // the kernel doubles it

inline constexpr absl::Duration kLingerTime = absl::Seconds(1);  // for a client to read our last words
inline constexpr int64_t kMaxLingerBytes = 16 << 20;

}  // namespace weft
