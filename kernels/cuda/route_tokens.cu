// The k best of a token's experts by softmax(logits), the lower id first among equals. Cost: memory, 4 bytes an expert.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

constexpr int kWarps = 4;  // tokens of a block

struct Choice {
  float p = 0;
  int32_t expert = 0;
};

__device__ __forceinline__ bool IsBetter(const Choice& x, const Choice& y) {
  return x.p > y.p || (x.p == y.p && x.expert < y.expert);
}

__device__ __forceinline__ Choice BestOfLanes(Choice x) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const Choice other{__shfl_xor_sync(kAllLanes, x.p, distance), __shfl_xor_sync(kAllLanes, x.expert, distance)};
    if (IsBetter(other, x)) x = other;
  }
  return x;
}

// A warp a token. Each choice is struck from the logits; where all that is left is NaN the lowest ids are taken, so
// that ids are valid whatever comes.
__global__ void __launch_bounds__(kWarps* kWarpSize)
    RouteTokensKernel(Matrix<float> logits, int num_experts, bool normalize, TokenExperts experts) {
  const int64_t token = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpSize;
  if (token >= experts.num_tokens) return;
  const int lane = threadIdx.x % kWarpSize;
  float* const p = logits.Row(token);
  float greatest = -INFINITY;
  for (int e = lane; e < num_experts; e += kWarpSize) greatest = fmaxf(greatest, p[e]);
  greatest = WarpMax(greatest);
  float sum = 0;
  for (int e = lane; e < num_experts; e += kWarpSize) {
    p[e] = expf(p[e] - greatest);
    sum += p[e];
  }
  sum = WarpSum(sum);
  constexpr float kTaken = -1;
  float sum_of_best = 0;
  for (int j = 0; j < experts.k; ++j) {
    Choice best{-2, num_experts};
    for (int e = lane; e < num_experts; e += kWarpSize) {
      const bool is_nan = !(p[e] >= kTaken);
      const Choice choice{is_nan ? -0.5f : p[e], e};
      if (IsBetter(choice, best)) best = choice;
    }
    best = BestOfLanes(best);
    const float weight = best.p < 0 ? NAN : best.p / sum;
    sum_of_best += weight;
    if (best.expert % kWarpSize == lane) p[best.expert] = kTaken;
    if (lane == 0) {
      experts.ids[token * experts.k + j] = best.expert;
      experts.weights[token * experts.k + j] = weight;
    }
  }
  if (lane != 0 || !normalize) return;
  for (int j = 0; j < experts.k; ++j) experts.weights[token * experts.k + j] /= sum_of_best;
}

}  // namespace

cudaError_t LaunchRouteTokens(Tensor logits, bool normalize, const TokenExperts& experts, cudaStream_t stream) {
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>((experts.num_tokens + kWarps - 1) / kWarps)),
                          .block = dim3(kWarps * kWarpSize)};
  return Launch(RouteTokensKernel, shape, stream, MatrixOf<float>(logits), static_cast<int>(logits.cols), normalize,
                experts);
}

}  // namespace weft::cuda
