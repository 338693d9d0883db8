// A block's shared memory: one struct a kernel, whose size the launcher passes on.
#pragma once

namespace weft::cuda {

template <typename T>
__device__ __forceinline__ T& SharedMemory() {
  extern __shared__ __align__(16) unsigned char weft_shared_memory[];
  return *reinterpret_cast<T*>(weft_shared_memory);
}

}  // namespace weft::cuda
