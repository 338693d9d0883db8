// The CPU as a device: vectorised kernels on a pool of threads, FP32 activations.
#pragma once

#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/context.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cpu/shard_sampler.h"

namespace weft::cpu {

// One worker's CPU device. Ops run when they are called, on the calling thread and the pool's; one thread at a time may
// call. Weights may be F32, F16, BF16 or I8; cached keys and values F32 or BF16.
class CpuBackend final : public Backend {
 public:
  // num_threads >= 1, the calling thread included. `isa` must be one that this machine runs; tests pass a lesser one.
  explicit CpuBackend(int num_threads, Isa isa = DetectIsa());

  DType activation_dtype() const override { return DType::kF32; }
  void UseFromThisThread() override {}
  std::unique_ptr<Communicator> GroupOf(std::unique_ptr<Communicator> host) override { return host; }
  absl::StatusOr<Buffer> Allocate(size_t bytes) override;
  absl::StatusOr<Buffer> AllocateHost(size_t bytes) override { return Allocate(bytes); }
  void CopyFromHost(void* device, const void* host, size_t bytes) override;
  void CopyToHost(void* host, const void* device, size_t bytes) override;
  absl::Status Synchronize() override { return absl::OkStatus(); }
  void Replay(int /*key*/, absl::FunctionRef<void()> ops) override { ops(); }
  bool CanReplay() const override { return false; }
  bool MarkHere(std::function<void()> /*reached*/) override { return true; }
  absl::Status AwaitMark() override { return absl::OkStatus(); }

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

 private:
  absl::Span<float> RawRow(size_t row, const SampleArgs& args, int64_t cols);

  Context context_;
  std::vector<RowSampler> samplers_;          // one a thread
  std::vector<ShardSampler> shard_samplers_;  // likewise
  std::vector<std::vector<float>> raw_rows_;  // logits as they came, of rows that want log-probabilities
};

}  // namespace weft::cpu
