// Queries and keys are normed by head where the model does that, and rotated to their positions (RoFormer, arXiv
// 2104.09864); keys and values go to their places in the paged cache.
// Cost: memory, (Hq + 2 Hkv) D elements a token read, and as many written.
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/kv_address.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

constexpr int kWarps = 4;          // heads of a block
constexpr int kMaxElements = 512;  // of a head
constexpr int kMaxALane = kMaxElements / kWarpSize;

// A warp a head. Lane l has elements l, l + 32, ...; a rotation pairs elements of one lane or of two, so it reads the
// head again, as it came.
template <typename T, typename Kv>
__global__ void __launch_bounds__(kWarps* kWarpSize)
    RotateAndAppendKernel(Matrix<T> qkv, AttentionHeads heads, QkNorm norm, const float* cos_sin, int rotary_dim,
                          RowMap rows, KvView kv) {
  const int head = blockIdx.y * kWarps + threadIdx.x / kWarpSize;
  if (head >= heads.num_heads + 2 * heads.num_kv_heads) return;
  const int lane = threadIdx.x % kWarpSize;
  const int dim = heads.head_dim;
  const int64_t token = blockIdx.x;
  const int64_t position = rows.positions[token];
  const bool is_query = head < heads.num_heads;
  const bool is_value = head >= heads.num_heads + heads.num_kv_heads;
  T* const x = qkv.Row(token) + int64_t{head} * dim;

  const float* const weight = is_query ? norm.q_weight : is_value ? nullptr : norm.k_weight;
  float factor = 1;
  if (weight != nullptr) {
    float squares = 0;
    for (int i = lane; i < dim; i += kWarpSize) squares = fmaf(ToFloat(x[i]), ToFloat(x[i]), squares);
    factor = 1 / sqrtf(WarpSum(squares) / static_cast<float>(dim) + norm.eps);
  }
  const auto normed = [&](int i) { return weight == nullptr ? ToFloat(x[i]) : ToFloat(x[i]) * factor * weight[i]; };

  const int half = is_value ? 0 : rotary_dim / 2;
  const float* const angles = cos_sin + position * rotary_dim;  // cos [half], sin [half]
  float rotated[kMaxALane];
#pragma unroll
  for (int j = 0; j < kMaxALane; ++j) {
    const int i = lane + j * kWarpSize;
    if (i >= dim) break;
    if (i < half) {
      rotated[j] = normed(i) * angles[i] - normed(i + half) * angles[half + i];
    } else if (i < 2 * half) {
      rotated[j] = normed(i) * angles[i - half] + normed(i - half) * angles[i];
    } else {
      rotated[j] = normed(i);
    }
  }
  __syncwarp();  // all have read the head
  const int kv_head = (head - heads.num_heads) % heads.num_kv_heads;
  Kv* const cached = is_query ? nullptr
                              : static_cast<Kv*>(is_value ? kv.values : kv.keys) +
                                    KvOffset(kv, rows, RowOfToken(rows, token), position, kv_head);
#pragma unroll
  for (int j = 0; j < kMaxALane; ++j) {
    const int i = lane + j * kWarpSize;
    if (i >= dim) break;
    if (is_query) {
      x[i] = FromFloat<T>(rotated[j]);
    } else {
      cached[i] = FromFloat<Kv>(rotated[j]);
    }
  }
}

template <typename T, typename Kv>
cudaError_t LaunchFor(const RotateArgs& args, cudaStream_t stream) {
  if (args.heads.head_dim > kMaxElements) return cudaErrorInvalidValue;
  const int num_heads = args.heads.num_heads + 2 * args.heads.num_kv_heads;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(args.rows.num_tokens),
                                       static_cast<unsigned>((num_heads + kWarps - 1) / kWarps)),
                          .block = dim3(kWarps * kWarpSize)};
  return Launch(RotateAndAppendKernel<T, Kv>, shape, stream, MatrixOf<T>(args.qkv), args.heads, args.norm, args.cos_sin,
                args.rotary_dim, args.rows, args.kv);
}

}  // namespace

cudaError_t LaunchRotateAndAppend(const RotateArgs& args, cudaStream_t stream) {
  if (args.kv.dtype == args.qkv.dtype) WEFT_RETURN_FOR(args.qkv.dtype, LaunchFor<T, T>(args, stream));
  if (args.kv.dtype == DType::kBF16 && args.qkv.dtype == DType::kF32) return LaunchFor<float, BF16>(args, stream);
  return cudaErrorInvalidValue;
}

}  // namespace weft::cuda
