// THE SEAM, half 1: everything a device can do for one rank of a model.
//
// A Backend is one device (or one CPU thread pool) as seen by one worker thread. Ops enqueue on the device's stream, in
// order, and return; they are named for the mathematics and allocate no device memory. Shapes: T tokens of the step, H
// hidden size, D head size, Hq and Hkv query and key-value heads on this rank.
//
// Every op is batch invariant: a token's result depends on that token's inputs alone, bit for bit, whoever shares the
// step and however its prompt was cut into chunks. Reductions therefore run in one fixed order along the reduced axis.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/attention.h"
#include "kernels/communicator.h"
#include "kernels/experts.h"
#include "kernels/sampling.h"
#include "kernels/sampling_shards.h"
#include "kernels/tensor.h"

namespace weft {

class Backend {
 public:
  virtual ~Backend() = default;

  // What activations are between ops, but for the residual stream, logits, and what chooses experts: these are F32.
  virtual DType activation_dtype() const = 0;

  // The calling thread is the one that uses the backend from now on; until then it is the one that opened it.
  virtual void UseFromThisThread() = 0;

  // The group for tensors in this backend's memory, of which `host` has the same for tensors in the host's.
  virtual std::unique_ptr<Communicator> GroupOf(std::unique_ptr<Communicator> host) = 0;

  // Memory. Allocate fails with ResourceExhausted, naming the bytes; memory is zeroed and 64-byte aligned.
  virtual absl::StatusOr<Buffer> Allocate(size_t bytes) = 0;
  // Host memory, zeroed, that copies read and write while the host goes on: it may be changed once they are done.
  // Copies of other host memory are done when the call returns.
  virtual absl::StatusOr<Buffer> AllocateHost(size_t bytes) = 0;
  virtual void CopyFromHost(void* device, const void* host, size_t bytes) = 0;
  virtual void CopyToHost(void* host, const void* device, size_t bytes) = 0;
  // Waits for everything enqueued; the first error since the last wait.
  virtual absl::Status Synchronize() = 0;

  // Places in the order of what is enqueued, so that the host goes on while the device works. MarkHere is after all
  // that has been; at most kMaxMarks are open. AwaitMark waits for the oldest open one, and tells the first error so
  // far. True: the newest has been reached already. False: `reached` is called when it is, on any thread, unless the
  // backend ends before.
  static constexpr int kMaxMarks = 4;
  virtual bool MarkHere(std::function<void()> reached) = 0;
  virtual absl::Status AwaitMark() = 0;

  // Runs `ops`, which enqueue on this backend. A device that can records them the first time that `key` comes, and
  // since does the same again with one launch: then they aren't called, and what they would pass must not have changed.
  // What is in device memory may have.
  virtual void Replay(int key, absl::FunctionRef<void()> ops) = 0;
  virtual bool CanReplay() const = 0;

  // The weight whose rows are the rows of `parts`, one below the other (so that Q, K and V become one linear), stored
  // as `dtype`: rounded to nearest even, or for kI8 quantised symmetrically with one scale an output channel
  // (scale = max|w| / 127). `bias`: float [sum of rows] in host memory, or empty.
  virtual absl::StatusOr<Weight> MakeWeight(absl::Span<const HostMatrix> parts, absl::Span<const float> bias,
                                            DType dtype) = 0;

  // out[t] = table[token_ids[t] - first_token], or 0 where the table has no such row.      out: [T, H]
  virtual void Embed(const int32_t* token_ids, int32_t first_token, const Weight& table, Tensor out) = 0;

  // x += delta.                                                                           x, delta: [T, H]
  virtual void Add(Tensor x, Tensor delta) = 0;

  // out = x / sqrt(mean(x^2) + eps) * weight.                                             x, out: [T, H], weight: [H]
  virtual void RmsNorm(Tensor x, const float* weight, float eps, Tensor out) = 0;

  // x += delta; out = RmsNorm(x).                                                         x, delta, out: [T, H]
  virtual void AddRmsNorm(Tensor x, Tensor delta, const float* weight, float eps, Tensor out) = 0;

  // out = x W^T + b.                                                                      x: [T, in], out: [T, out]
  // kI8 weights: x is quantised symmetrically with one scale a row, the products are summed as integers, exactly.
  virtual void Linear(Tensor x, const Weight& weight, Tensor out) = 0;

  // Queries and keys of qkv are normed (where norm says so) and rotated to their positions, queries in place; keys and
  // values are written to their places in the paged cache.                                qkv: [T, (Hq + 2 Hkv) * D]
  virtual void RotateAndAppend(Tensor qkv, const AttentionHeads& heads, const QkNorm& norm, const RotaryTable& rotary,
                               const RowMap& rows, const KvView& kv) = 0;

  // Causal softmax attention of each token over its row's cached positions 0 .. its own.  qkv: queries as left by
  // RotateAndAppend (first Hq * D columns), out: [T, Hq * D]
  virtual void Attention(Tensor qkv, const AttentionArgs& args, const RowMap& rows, const KvView& kv, Tensor out) = 0;

  // out = silu(gate) * up.                                                                gate_up: [T, 2 F], out: [T,
  // F]
  virtual void SwiGlu(Tensor gate_up, Tensor out) = 0;

  // target[pairs[2 i]] = pairs[2 i + 1] for i < count. Places are distinct.               pairs: [count, 2]
  virtual void ScatterPairs(const int32_t* pairs, int count, int32_t* target) = 0;

  // out[i] = from[places[i]] where places[i] >= 0; the rest of out stays.                  places, out: [count]
  virtual void TakeInts(const int32_t* from, const int32_t* places, int count, int32_t* out) = 0;

  // out[i] = x[rows[i]].                                                                  out: [R, H]
  virtual void GatherRows(Tensor x, const int32_t* rows, Tensor out) = 0;

  // The k best of a token's experts by softmax(logits), k <= E; the lower id wins a tie. Their weights are those
  // probabilities, divided by their sum where `normalize` says so. Destroys the logits.    logits: F32 [T, E]
  virtual void RouteTokens(Tensor logits, bool normalize, const TokenExperts& experts) = 0;

  // Deals places to the pairs of the experts `here`, by expert, then by token, and counts them.
  virtual void GroupByExpert(const TokenExperts& experts, ExpertRange here, const ExpertGroups& groups) = 0;

  // Ready for GroupedLinear. Errors: InvalidArgument for none, or of different shapes or dtypes; ResourceExhausted.
  virtual absl::StatusOr<ExpertWeights> MakeExpertWeights(std::vector<Weight> experts) = 0;

  // out[p] = x[rows[p]] W_e^T + b_e for each place p of each expert e, with W_e and b_e as in Linear; rows null: x[p].
  // An expert without places costs nothing.                                                rows: [T * k], or null
  //                                                   x: [T, in], or [T * k, in] without rows; out: [T * k, out]
  virtual void GroupedLinear(Tensor x, const int32_t* rows, const int32_t* begin, const ExpertWeights& weights,
                             Tensor out) = 0;

  // out[t] = sum over j of weights[t, j] * x[places[t, j]], in the order of j, without those that have no place here.
  //                                                                                       x: [T * k, H], out: [T, H]
  virtual void CombineExperts(Tensor x, const TokenExperts& experts, const int32_t* places, Tensor out) = 0;

  // out += sigmoid(gate) * x.                                                             gate: [T, 1], x, out: [T, H]
  virtual void AddGated(Tensor gate, Tensor x, Tensor out) = 0;

  // Draws one token a row, or reports on the one that is known; destroys the logits. The results are set when a mark
  // after this is awaited, or all is.
  //                                                                                       logits: F32 [R, vocab]
  virtual void Sample(Tensor logits, absl::Span<const SampleArgs> args, absl::Span<SampleResult> results) = 0;

  // The three steps of drawing from rows whose columns are spread over ranks, in sampling_shards.h; they wait for the
  // device, and their results are in host memory on return. SummarizeRows applies penalties and biases, and remembers
  // the logits as they came for the second step.
  //                                                                                       logits: F32 [R, share]
  virtual void SummarizeRows(Tensor logits, int32_t first_token, absl::Span<const SampleArgs> args,
                             absl::Span<RowSummary> shares) = 0;
  // candidates: draws[i].num_candidates() for each row, one row after the other.
  virtual void PickCandidates(Tensor logits, int32_t first_token, absl::Span<const SampleArgs> args,
                              absl::Span<const RowSummary> rows, absl::Span<const RowDraw> draws,
                              absl::Span<DrawCandidate> candidates) = 0;
  // candidates: those of each rank, one rank after the other. Sets is_drawn and the result of each row that it draws.
  virtual void DrawFromCandidates(absl::Span<const SampleArgs> args, absl::Span<const RowSummary> rows,
                                  absl::Span<const DrawCandidate> candidates, absl::Span<RowDraw> draws,
                                  absl::Span<SampleResult> results) = 0;
};

}  // namespace weft
