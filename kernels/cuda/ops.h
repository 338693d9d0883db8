// The launchers of all kernels: device pointers, sizes and a stream; the error is that of the launch. What has rows is
// a Tensor. Activations are BF16, F16 or F32; the residual stream, logits and norms' weights are F32 always.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cuda/sampling_jobs.h"
#include "kernels/experts.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"

namespace weft::cuda {

// out = table's row token_ids[t] - first_token, or 0 where there is none.               out: F32 [T, H]
cudaError_t LaunchEmbed(const int32_t* token_ids, int32_t first_token, const Weight& table, Tensor out,
                        cudaStream_t stream);

// x += delta.                                                                           x: F32 [T, H], delta: [T, H]
cudaError_t LaunchAdd(Tensor x, Tensor delta, cudaStream_t stream);

// x += delta where delta has data; out = x / sqrt(mean(x^2) + eps) * weight.            x: F32, delta, out: [T, H]
cudaError_t LaunchRmsNorm(Tensor x, Tensor delta, const float* weight, float eps, Tensor out, cudaStream_t stream);

// out = silu(gate) * up.                                                                gate_up: [T, 2 F], out: [T, F]
cudaError_t LaunchSwiGlu(Tensor gate_up, Tensor out, cudaStream_t stream);

// target[pairs[2 i]] = pairs[2 i + 1].                                                  pairs: [count, 2]
cudaError_t LaunchScatterPairs(const int32_t* pairs, int count, int32_t* target, cudaStream_t stream);

// out = x in another type, one of them F32.                                             x, out: [T, H]
cudaError_t LaunchCast(Tensor x, Tensor out, cudaStream_t stream);

// out[i] = from[places[i]] where places[i] >= 0.                                         places, out: [count]
cudaError_t LaunchTakeInts(const int32_t* from, const int32_t* places, int count, int32_t* out, cudaStream_t stream);

// out[i] = x[rows[i]].                                                                  x, out: of one dtype
cudaError_t LaunchGatherRows(Tensor x, const int32_t* rows, Tensor out, cudaStream_t stream);

// See Backend::RotateAndAppend.
struct RotateArgs {
  Tensor qkv;
  AttentionHeads heads;
  QkNorm norm;
  const float* cos_sin = nullptr;  // [max_positions, rotary_dim]
  int rotary_dim = 0;
  RowMap rows;
  KvView kv;
};
cudaError_t LaunchRotateAndAppend(const RotateArgs& args, cudaStream_t stream);

// See Backend::Attention.
cudaError_t LaunchAttention(Tensor qkv, const AttentionArgs& args, const RowMap& rows, const KvView& kv, Tensor out,
                            cudaStream_t stream);

// q = round(x / scale), scale = max|x| / 127 of each row. A row of zeros has scale 0, one that isn't finite NaN.
//                                                                               x, q: [M, cols], dense q, scale: [M]
cudaError_t LaunchQuantizeRows(Tensor x, int8_t* q, float* scale, cudaStream_t stream);

// A linear's matrix as kernels read it: [out_features, in_features], dense, row-major.
struct WeightView {
  const void* data = nullptr;
  const float* scale = nullptr;  // kI8 only: [out_features]
  const float* bias = nullptr;   // [out_features], or null
};

// One linear, or one for each expert: places begin[e] .. begin[e + 1] of the input's rows go through weights[e].
struct LinearArgs {
  Tensor x;                           // [M, in_features]; or bytes, for kI8 weights
  const float* x_scale = nullptr;     // kI8 only: of each row of x
  const int32_t* rows = nullptr;      // [M] which row of x is a place's; null: its own
  const WeightView* table = nullptr;  // [num_experts] in device memory; null: `weight`, of all places
  const int32_t* begin = nullptr;     // [num_experts + 1] in device memory
  int num_experts = 1;
  WeightView weight;
  DType weight_dtype = DType::kF32;
  Tensor out;  // [M, out_features], of x's dtype (before it was quantised) or F32
};
cudaError_t LaunchLinear(const LinearArgs& args, cudaStream_t stream);

// out = sums * x_scale * weight.scale + bias.                 sums: [M, N] dense, x_scale: [M], out: [M, N]
cudaError_t LaunchScaleSums(const int32_t* sums, const float* x_scale, const WeightView& weight, Tensor out,
                            cudaStream_t stream);

// See Backend.
cudaError_t LaunchRouteTokens(Tensor logits, bool normalize, const TokenExperts& experts, cudaStream_t stream);
cudaError_t LaunchGroupByExpert(const TokenExperts& experts, ExpertRange here, const ExpertGroups& groups,
                                cudaStream_t stream);
cudaError_t LaunchCombineExperts(Tensor x, const TokenExperts& experts, const int32_t* places, Tensor out,
                                 cudaStream_t stream);
cudaError_t LaunchAddGated(Tensor gate, Tensor x, Tensor out, cudaStream_t stream);

// Sampling. Jobs, and what they refer to, are in device memory; most_tokens: of any of them.
//                                                                               totals: [as many as jobs name]
cudaError_t LaunchSummarizeRows(const SummaryJob* jobs, int num_jobs, int64_t most_tokens, RowTotals* totals,
                                cudaStream_t stream);
// counts, biases: of all jobs.
cudaError_t LaunchEditLogits(const EditJob* jobs, int num_jobs, const TokenCount* counts, const LogitBias* biases,
                             cudaStream_t stream);
cudaError_t LaunchPickBest(const PickJob* jobs, int num_jobs, int64_t most_tokens, uint64_t* scratch,
                           PickedToken* picked, cudaStream_t stream);
//                                                                               drawn: [num_jobs]
cudaError_t LaunchDrawTokens(const DrawJob* jobs, int num_jobs, int64_t most_tokens, const RowTotals* totals,
                             DrawnToken* drawn, cudaStream_t stream);

}  // namespace weft::cuda
