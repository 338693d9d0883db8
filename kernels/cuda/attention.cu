// Causal softmax attention of each token over its row's cached positions (arXiv 1706.03762), with the running maximum
// and sum of arXiv 1805.02867.
// Cost: 4 D FLOP for each query head and position; the keys and values of a row's positions, read once for each head.
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/kv_address.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

constexpr int kWarps = 4;  // query heads of a block
constexpr int kMaxElements = 512;
constexpr int kMaxALane = kMaxElements / kWarpSize;

// A warp a query head. Positions are taken 32 at a time, at absolute multiples of 32, a lane each for the scores; for
// the sum lane l has elements l, l + 32, ... of the output. So a token's bits depend on its own positions alone.
template <typename T, typename Kv>
__global__ void __launch_bounds__(kWarps* kWarpSize)
    AttentionKernel(Matrix<const T> qkv, AttentionArgs args, RowMap rows, KvView kv, Matrix<T> out) {
  const int head = blockIdx.y * kWarps + threadIdx.x / kWarpSize;
  if (head >= args.heads.num_heads) return;
  const int lane = threadIdx.x % kWarpSize;
  const int dim = args.heads.head_dim;
  const int kv_head = head / (args.heads.num_heads / args.heads.num_kv_heads);
  const int64_t token = blockIdx.x;
  const int row = RowOfToken(rows, token);
  const int64_t last = rows.positions[token];
  const int64_t first = args.sliding_window > 0 ? max(int64_t{0}, last - args.sliding_window + 1) : 0;
  const T* const query = qkv.Row(token) + int64_t{head} * dim;

  float greatest = -INFINITY, sum = 0;
  float values[kMaxALane] = {};
  for (int64_t begin = first / kWarpSize * kWarpSize; begin <= last; begin += kWarpSize) {
    const int64_t position = begin + lane;
    const bool is_seen = position >= first && position <= last;
    float score = -INFINITY;
    if (is_seen) {
      const Kv* const key = static_cast<const Kv*>(kv.keys) + KvOffset(kv, rows, row, position, kv_head);
      score = 0;
      for (int i = 0; i < dim; ++i) score = fmaf(ToFloat(query[i]), ToFloat(key[i]), score);
      score *= args.scale;
    }
    const float new_greatest = fmaxf(greatest, WarpMax(score));
    const float fading = expf(greatest - new_greatest);
    const float weight = is_seen ? expf(score - new_greatest) : 0;
    greatest = new_greatest;
    sum = sum * fading + WarpSum(weight);
#pragma unroll
    for (int j = 0; j < kMaxALane; ++j) values[j] *= fading;
    const int count = static_cast<int>(min(int64_t{kWarpSize}, last - begin + 1));
    for (int other = static_cast<int>(max(int64_t{0}, first - begin)); other < count; ++other) {
      const float weight_of_other = __shfl_sync(kAllLanes, weight, other);
      const Kv* const value = static_cast<const Kv*>(kv.values) + KvOffset(kv, rows, row, begin + other, kv_head);
#pragma unroll
      for (int j = 0; j < kMaxALane; ++j) {
        const int i = lane + j * kWarpSize;
        if (i < dim) values[j] = fmaf(weight_of_other, ToFloat(value[i]), values[j]);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kMaxALane; ++j) {
    const int i = lane + j * kWarpSize;
    if (i < dim) out.Row(token)[int64_t{head} * dim + i] = FromFloat<T>(values[j] / sum);
  }
}

struct Operands {
  Tensor qkv;
  AttentionArgs args;
  RowMap rows;
  KvView kv;
  Tensor out;
};

template <typename T, typename Kv>
cudaError_t LaunchFor(const Operands& x, cudaStream_t stream) {
  if (x.args.heads.head_dim > kMaxElements) return cudaErrorInvalidValue;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(x.rows.num_tokens),
                                       static_cast<unsigned>((x.args.heads.num_heads + kWarps - 1) / kWarps)),
                          .block = dim3(kWarps * kWarpSize)};
  return Launch(AttentionKernel<T, Kv>, shape, stream, MatrixOf<const T>(x.qkv), x.args, x.rows, x.kv,
                MatrixOf<T>(x.out));
}

}  // namespace

cudaError_t LaunchAttention(Tensor qkv, const AttentionArgs& args, const RowMap& rows, const KvView& kv, Tensor out,
                            cudaStream_t stream) {
  const Operands operands{qkv, args, rows, kv, out};
  if (kv.dtype == out.dtype) WEFT_RETURN_FOR(out.dtype, LaunchFor<T, T>(operands, stream));
  if (kv.dtype == DType::kBF16 && out.dtype == DType::kF32) return LaunchFor<float, BF16>(operands, stream);
  return cudaErrorInvalidValue;
}

}  // namespace weft::cuda
