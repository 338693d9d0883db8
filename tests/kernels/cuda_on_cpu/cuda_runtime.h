// In place of CUDA's header of this name, where a kernel's source is compiled as C++ for tests: the qualifiers, types
// and intrinsics that Weft's kernels use, and the part of the runtime that its backend uses. A device's memory is the
// host's, a stream does everything at once. What is not here, kernels don't use.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>

#include "tests/kernels/cuda_on_cpu/grid.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __restrict__

using std::max;
using std::min;

// Vector types.

template <typename T, int kCount>
struct CudaVector;
template <typename T>
struct alignas(2 * sizeof(T)) CudaVector<T, 2> {
  T x, y;
};
template <typename T>
struct alignas(4 * sizeof(T)) CudaVector<T, 4> {
  T x, y, z, w;
};
using float2 = CudaVector<float, 2>;
using float4 = CudaVector<float, 4>;
using int2 = CudaVector<int, 2>;
using int4 = CudaVector<int, 4>;
using uint2 = CudaVector<unsigned, 2>;
using uint4 = CudaVector<unsigned, 4>;
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// Where threads meet. The operands of a warp op live on the stacks of the lanes, which stand still meanwhile.

namespace weft::cuda {

template <typename T>
struct Shuffle {
  T value;     // in
  int source;  // in
  T result;    // out
};

template <typename T>
T ShuffleFrom(unsigned mask, T value, int source, CodePlace place) {
  Shuffle<T> shuffle{value, source & (kNumLanes - 1), value};
  MeetWarp(mask, place, &shuffle, [](void* const* lanes) {
    for (int i = 0; i < kNumLanes; ++i) {
      if (lanes[i] == nullptr) continue;
      auto& mine = *static_cast<Shuffle<T>*>(lanes[i]);
      const auto* from = static_cast<const Shuffle<T>*>(lanes[mine.source]);
      // From a lane that takes no part: undefined, so poison.
      if (from == nullptr)
        std::memset(&mine.result, kPoison, sizeof(T));
      else
        mine.result = from->value;
    }
  });
  return shuffle.result;
}

template <typename T>
T ShuffleDown(unsigned mask, T value, int delta, CodePlace place) {
  const int source = Lane() + delta;
  return ShuffleFrom(mask, value, source < kNumLanes ? source : Lane(), place);
}

template <typename T>
T ShuffleUp(unsigned mask, T value, int delta, CodePlace place) {
  const int source = Lane() - delta;
  return ShuffleFrom(mask, value, source >= 0 ? source : Lane(), place);
}

inline unsigned Ballot(unsigned mask, bool vote, CodePlace place) {
  struct Vote {
    bool vote;
    unsigned result;
  } mine{vote, 0};
  MeetWarp(mask, place, &mine, [](void* const* lanes) {
    unsigned votes = 0;
    for (int i = 0; i < kNumLanes; ++i) {
      if (lanes[i] != nullptr && static_cast<const Vote*>(lanes[i])->vote) votes |= 1u << i;
    }
    for (int i = 0; i < kNumLanes; ++i) {
      if (lanes[i] != nullptr) static_cast<Vote*>(lanes[i])->result = votes;
    }
  });
  return mine.result;
}

inline void MeetOnly(void* const*) {}

}  // namespace weft::cuda

#define WEFT_PLACE (::weft::cuda::CodePlace{__FILE__, __LINE__})
#define __syncthreads() ::weft::cuda::MeetBlock(WEFT_PLACE)
#define __syncwarp(...) ::weft::cuda::MeetWarp(0xffffffffu, WEFT_PLACE, nullptr, ::weft::cuda::MeetOnly)
#define __shfl_sync(mask, value, source) ::weft::cuda::ShuffleFrom(mask, value, source, WEFT_PLACE)
#define __shfl_xor_sync(mask, value, lanes) \
  ::weft::cuda::ShuffleFrom(mask, value, ::weft::cuda::Lane() ^ (lanes), WEFT_PLACE)
#define __shfl_down_sync(mask, value, delta) ::weft::cuda::ShuffleDown(mask, value, delta, WEFT_PLACE)
#define __shfl_up_sync(mask, value, delta) ::weft::cuda::ShuffleUp(mask, value, delta, WEFT_PLACE)
#define __ballot_sync(mask, vote) ::weft::cuda::Ballot(mask, vote, WEFT_PLACE)
#define __any_sync(mask, vote) (::weft::cuda::Ballot(mask, vote, WEFT_PLACE) != 0)
#define __all_sync(mask, vote) (::weft::cuda::Ballot(mask, !(vote), WEFT_PLACE) == 0)

// Arithmetic.

inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __fdividef(float x, float y) { return x / y; }
// Each rounded once, and never fused with another.
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __double2float_ru(double x) {
  const auto nearest = static_cast<float>(x);
  return nearest < x ? std::nextafter(nearest, INFINITY) : nearest;
}
inline unsigned long long __float2ull_rn(float x) {
  if (!(x > 0)) return 0;
  return x < 0x1p63f ? static_cast<unsigned long long>(std::llrint(x)) : static_cast<unsigned long long>(x);
}
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>(uint64_t{x} * y >> 32); }
template <typename T>
T __ldg(const T* x) {
  return *x;
}

template <typename T>
T atomicAdd(T* x, T y) {
  return std::atomic_ref<T>(*x).fetch_add(y);
}
inline float atomicAdd(float* x, float y) {
  std::atomic_ref<float> at(*x);
  float old = at.load();
  while (!at.compare_exchange_weak(old, old + y)) {
  }
  return old;
}
template <typename T>
T atomicMax(T* x, T y) {
  std::atomic_ref<T> at(*x);
  T old = at.load();
  while (old < y && !at.compare_exchange_weak(old, y)) {
  }
  return old;
}
template <typename T>
T atomicCAS(T* x, T expected, T wanted) {
  std::atomic_ref<T>(*x).compare_exchange_strong(expected, wanted);
  return expected;
}

// The runtime.

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorPeerAccessAlreadyEnabled = 704,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900
};
using cudaStream_t = struct CudaStream*;
struct cudaLaunchAttribute {
  int id;
  union {
    int programmaticStreamSerializationAllowed;
  } val;
};
inline constexpr int cudaLaunchAttributeProgrammaticStreamSerialization = 6;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

namespace weft::cuda {

// Of the calling thread's last kernel that failed.
const char* LastFailure();
cudaError_t Report(std::string failure);

// Does it now, or records it where the stream is captured.
cudaError_t Enqueue(cudaStream_t stream, std::function<cudaError_t()> op);

}  // namespace weft::cuda

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const weft::cuda::GridShape shape{config->gridDim, config->blockDim, config->dynamicSmemBytes};
  // Parameters are copied now, as on a device.
  return weft::cuda::Enqueue(
      config->stream, [shape, kernel, parameters = std::tuple<std::decay_t<Parameters>...>(arguments...)] {
        return weft::cuda::Report(weft::cuda::RunGrid(shape, [&] { std::apply(kernel, parameters); }));
      });
}
const char* cudaGetErrorString(cudaError_t error);

enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
inline constexpr unsigned cudaStreamNonBlocking = 1;

struct cudaDeviceProp {
  char name[256];
  int major, minor;
  size_t totalGlobalMem;
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMalloc(void** data, size_t bytes);
cudaError_t cudaFree(void* data);
cudaError_t cudaMallocHost(void** data, size_t bytes);
cudaError_t cudaFreeHost(void* data);
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);

// Everything enqueued before an event is done when it is recorded.
using cudaEvent_t = struct CudaEvent*;
inline constexpr unsigned cudaEventDisableTiming = 2;
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
using cudaHostFn_t = void (*)(void* data);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data);

// Devices see each other's memory within a process, and not beyond it.
struct cudaIpcMemHandle_t {
  char reserved[64];
};
inline constexpr unsigned cudaIpcMemLazyEnablePeerAccess = 1;
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* memory);
cudaError_t cudaIpcOpenMemHandle(void** memory, cudaIpcMemHandle_t handle, unsigned flags);
cudaError_t cudaIpcCloseMemHandle(void* memory);
cudaError_t cudaDeviceCanAccessPeer(int* can_access, int device, int peer);
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags);

// What is captured is recorded, not done; a replay does it again, with the same parameters.
using cudaGraph_t = struct CudaGraph*;
using cudaGraphExec_t = struct CudaGraph*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
