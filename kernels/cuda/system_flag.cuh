// Words in device memory by which blocks on different devices tell each other how far they are.
#pragma once

#include <cstdint>

namespace weft::cuda {

// What was written before is seen by whoever sees the flag.
__device__ __forceinline__ void SetFlag(uint32_t* flag, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}

__device__ __forceinline__ uint32_t SeeFlag(const uint32_t* flag) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}

// While a flag isn't set.
__device__ __forceinline__ void Pause() { __nanosleep(20); }

__device__ __forceinline__ uint64_t NanosecondsNow() {
  uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}

}  // namespace weft::cuda
