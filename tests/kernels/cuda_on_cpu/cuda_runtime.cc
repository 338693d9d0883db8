#include <cuda_runtime.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/cuda_on_cpu/counters.h"

struct CudaGraph {
  std::vector<std::function<cudaError_t()>> ops;
};

struct CudaStream {
  std::unique_ptr<CudaGraph> captured;  // null: what comes is done at once
};

namespace weft::cuda {
namespace {

thread_local std::string last_failure;
thread_local int num_captures = 0;  // that this thread has begun
std::atomic<int64_t> num_allocations = 0;
std::atomic<int64_t> num_replays = 0;

}  // namespace

int64_t NumAllocations() { return num_allocations; }
int64_t NumReplays() { return num_replays; }

cudaError_t Enqueue(cudaStream_t stream, std::function<cudaError_t()> op) {
  if (stream->captured == nullptr) return op();
  stream->captured->ops.push_back(std::move(op));
  return cudaSuccess;
}

const char* LastFailure() { return last_failure.c_str(); }

cudaError_t Report(std::string failure) {
  last_failure = std::move(failure);
  return last_failure.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace weft::cuda

constexpr size_t kMemoryBytes = size_t{1} << 30;

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "an argument that no kernel takes";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorPeerAccessAlreadyEnabled:
      return "devices see each other already";
    case cudaErrorStreamCaptureUnsupported:
      return "a capture can't hold this";
    case cudaErrorLaunchFailure:
      return weft::cuda::LastFailure();
  }
  return "an error that has no name";
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {.name = "a thread of the CPU", .major = 8, .minor = 0, .totalGlobalMem = kMemoryBytes};
  return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = kMemoryBytes;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }

// Exactly as many bytes, so that ASan sees what goes beyond them.
cudaError_t cudaMalloc(void** data, size_t bytes) {
  constexpr size_t kAlignment = 256;
  if (weft::cuda::num_captures > 0) return cudaErrorStreamCaptureUnsupported;
  ++weft::cuda::num_allocations;
  return posix_memalign(data, kAlignment, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void* data) {
  std::free(data);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** data, size_t bytes) { return cudaMalloc(data, bytes); }
cudaError_t cudaFreeHost(void* data) { return cudaFree(data); }

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  return weft::cuda::Enqueue(stream, [=] {
    std::memset(data, value, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return weft::cuda::Enqueue(stream, [=] {
    std::memcpy(to, from, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CudaStream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return stream->captured == nullptr ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t*, void*) { return cudaErrorInvalidValue; }
cudaError_t cudaIpcOpenMemHandle(void**, cudaIpcMemHandle_t, unsigned) { return cudaErrorInvalidValue; }
cudaError_t cudaIpcCloseMemHandle(void*) { return cudaErrorInvalidValue; }
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaErrorPeerAccessAlreadyEnabled; }
cudaError_t cudaDeviceCanAccessPeer(int* can_access, int, int) {
  *can_access = 1;
  return cudaSuccess;
}

struct CudaEvent {
  bool is_recorded = false;
};

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CudaEvent;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->is_recorded = true;
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) { return event->is_recorded ? cudaSuccess : cudaErrorInvalidValue; }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned) { return cudaEventSynchronize(event); }

cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t function, void* data) {
  function(data);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->captured != nullptr) return cudaErrorStreamCaptureUnsupported;
  stream->captured = std::make_unique<CudaGraph>();
  ++weft::cuda::num_captures;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (stream->captured == nullptr) return cudaErrorStreamCaptureUnsupported;
  --weft::cuda::num_captures;
  *graph = stream->captured.release();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CudaGraph(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  ++weft::cuda::num_replays;
  return weft::cuda::Enqueue(stream, [exec] {
    for (const auto& op : exec->ops) {
      if (const cudaError_t error = op(); error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
