// What the emulated runtime has been asked for, by all devices.
#pragma once

#include <cstdint>

namespace weft::cuda {

// Calls of cudaMalloc and cudaMallocHost so far.
int64_t NumAllocations();
// Of recorded work, so far.
int64_t NumReplays();
// Products by way of cuBLASLt, so far.
int64_t NumMatmuls();

}  // namespace weft::cuda
