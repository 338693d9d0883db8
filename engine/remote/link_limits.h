// Bounds of the link between server and workers; both ends have the same.
#pragma once

namespace weft {

// Far above any step within the limits of flags; what is larger isn't read.
inline constexpr int kMaxWorkerMessageBytes = 64 << 20;
// A host that is cut off is noticed after these, when it should have answered and has not.
inline constexpr int kKeepaliveMs = 2'000;
inline constexpr int kKeepaliveTimeoutMs = 3'000;

}  // namespace weft
