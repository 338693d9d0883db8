// A CUDA device as a Backend: every op is a launch, or a few, on one stream.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/backend.h"
#include "kernels/cuda/all_reduce.h"
#include "kernels/cuda/cublas_lt.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/sampler.h"
#include "kernels/cuda/weight_loader.h"

namespace weft::cuda {

struct CudaOptions {
  int device = 0;
  DType activations = DType::kBF16;  // or kF16, kF32
  // A token's result doesn't depend, bit for bit, on how many rows share its step: 16-bit linears of many rows, too,
  // run on the kernel of few. Those of int8 are exact, and so in any kernel the same.
  bool batch_invariant = true;
  size_t max_sums_bytes = 64 << 20;  // of int8 linears of many rows, which are cut up to this
};

// One worker's device; used by one thread at a time. Weights are of the type of activations, F32 where these must stay
// exact, or I8; cached keys and values of the type of activations. The first op that fails is kept, with its shape,
// until Synchronize tells; what runs after it means nothing.
class CudaBackend final : public Backend {
 public:
  // Errors: Unavailable where there is no such device, or no driver for it.
  static absl::StatusOr<std::unique_ptr<CudaBackend>> Open(const CudaOptions& options);
  ~CudaBackend() override;
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  DType activation_dtype() const override { return options_.activations; }
  void UseFromThisThread() override;
  std::unique_ptr<Communicator> GroupOf(std::unique_ptr<Communicator> host) override;
  absl::StatusOr<Buffer> Allocate(size_t bytes) override;
  absl::StatusOr<Buffer> AllocateHost(size_t bytes) override;
  void CopyFromHost(void* device, const void* host, size_t bytes) override;
  void CopyToHost(void* host, const void* device, size_t bytes) override;
  absl::Status Synchronize() override;
  void Replay(int key, absl::FunctionRef<void()> ops) override;
  bool CanReplay() const override { return true; }
  bool MarkHere(std::function<void()> reached) override;
  absl::Status AwaitMark() override;

  absl::StatusOr<Weight> MakeWeight(absl::Span<const HostMatrix> parts, absl::Span<const float> bias,
                                    DType dtype) override;

  void Embed(const int32_t* token_ids, int32_t first_token, const Weight& table, Tensor out) override;
  void Add(Tensor x, Tensor delta) override;
  void RmsNorm(Tensor x, const float* weight, float eps, Tensor out) override;
  void AddRmsNorm(Tensor x, Tensor delta, const float* weight, float eps, Tensor out) override;
  void Linear(Tensor x, const Weight& weight, Tensor out) override;
  void RotateAndAppend(Tensor qkv, const AttentionHeads& heads, const QkNorm& norm, const RotaryTable& rotary,
                       const RowMap& rows, const KvView& kv) override;
  void Attention(Tensor qkv, const AttentionArgs& args, const RowMap& rows, const KvView& kv, Tensor out) override;
  void SwiGlu(Tensor gate_up, Tensor out) override;
  void ScatterPairs(const int32_t* pairs, int count, int32_t* target) override;
  void TakeInts(const int32_t* from, const int32_t* places, int count, int32_t* out) override;
  void GatherRows(Tensor x, const int32_t* rows, Tensor out) override;
  void RouteTokens(Tensor logits, bool normalize, const TokenExperts& experts) override;
  void GroupByExpert(const TokenExperts& experts, ExpertRange here, const ExpertGroups& groups) override;
  absl::StatusOr<ExpertWeights> MakeExpertWeights(std::vector<Weight> experts) override;
  void GroupedLinear(Tensor x, const int32_t* rows, const int32_t* begin, const ExpertWeights& weights,
                     Tensor out) override;
  void CombineExperts(Tensor x, const TokenExperts& experts, const int32_t* places, Tensor out) override;
  void AddGated(Tensor gate, Tensor x, Tensor out) override;
  void Sample(Tensor logits, absl::Span<const SampleArgs> args, absl::Span<SampleResult> results) override;
  void SummarizeRows(Tensor logits, int32_t first_token, absl::Span<const SampleArgs> args,
                     absl::Span<RowSummary> shares) override;
  void PickCandidates(Tensor logits, int32_t first_token, absl::Span<const SampleArgs> args,
                      absl::Span<const RowSummary> rows, absl::Span<const RowDraw> draws,
                      absl::Span<DrawCandidate> candidates) override;
  void DrawFromCandidates(absl::Span<const SampleArgs> args, absl::Span<const RowSummary> rows,
                          absl::Span<const DrawCandidate> candidates, absl::Span<RowDraw> draws,
                          absl::Span<SampleResult> results) override;

  // For groups of devices.
  int device() const { return options_.device; }
  void Cast(Tensor x, Tensor out);  // one of them F32
  void AllReduce(Tensor x, const AllReduceArgs& args);
  // Buffers that ops work in grow with the largest step, which is run before the first of a request. False: there is no
  // memory, and the next wait tells.
  bool Grow(Buffer& buffer, size_t bytes, absl::string_view op, const Tensor& shape);

 private:
  CudaBackend(const CudaOptions& options, cudaStream_t stream) : options_(options), stream_(stream), sampler_(stream) {}

  cudaGraphExec_t Record(absl::FunctionRef<void()> ops);
  void Check(cudaError_t error, absl::string_view op, const Tensor& shape);
  void Check(const absl::Status& status, absl::string_view op, const Tensor& shape);
  absl::StatusOr<Buffer> Upload(const void* host, size_t bytes);
  void LinearOf(LinearArgs args, absl::string_view op);
  absl::Status CheckFinite(const Weight& weight);
  bool LibraryLinear(const LinearArgs& args, absl::string_view op);
  bool ByteSums(const LinearArgs& args, absl::string_view op);

  const CudaOptions options_;
  const cudaStream_t stream_;
  cudaStream_t telling_ = nullptr;  // calls back, so that the ops need not wait for that
  std::array<cudaEvent_t, kMaxMarks> marks_{};
  size_t num_marks_ = 0, num_awaited_ = 0;
  absl::Status failure_;
  std::map<int, cudaGraphExec_t> graphs_;
  std::unique_ptr<CublasLt> cublas_lt_;   // null: there is none, and every linear runs on our own kernels
  std::unique_ptr<WeightLoader> loader_;  // once there is a weight
  Buffer quantized_;                      // activations as bytes, with their scales
  Buffer sums_;                           // of bytes
  Sampler sampler_;
};

}  // namespace weft::cuda
