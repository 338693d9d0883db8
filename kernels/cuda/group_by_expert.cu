// Deals places to the pairs of this rank's experts: by expert, then by token. Cost: one pass over the T * k ids for
// each of the rank's experts, from the cache; integers alone, so the order is exact.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/reduce.cuh"

namespace weft::cuda {
namespace {

constexpr int kThreads = 256;

// How many pairs of a warp's lanes before this one, and of all, want the same.
struct Rank {
  int before = 0, all = 0;
};

__device__ __forceinline__ Rank RankInWarp(bool wants) {
  const unsigned votes = __ballot_sync(kAllLanes, wants);
  const unsigned lanes_before = (1u << (threadIdx.x % kWarpSize)) - 1;
  return {__popc(votes & lanes_before), __popc(votes)};
}

// A warp an expert: counts its pairs.
__global__ void CountPairsKernel(const int32_t* ids, int64_t num_pairs, ExpertRange here, int32_t* begin) {
  const int expert = static_cast<int>(blockIdx.x);
  int count = 0;
  for (int64_t first = 0; first < num_pairs; first += kWarpSize) {
    const int64_t pair = first + threadIdx.x;
    count += RankInWarp(pair < num_pairs && ids[pair] == here.first + expert).all;
  }
  if (threadIdx.x == 0) begin[expert + 1] = count;
}

// One thread: from counts to beginnings.
__global__ void SumCountsKernel(int num_experts, ExpertGroups groups) {
  groups.begin[0] = 0;
  for (int expert = 0; expert < num_experts; ++expert) {
    if (groups.load != nullptr) groups.load[expert] += groups.begin[expert + 1];
    groups.begin[expert + 1] += groups.begin[expert];
  }
}

// A warp an expert: deals its places.
__global__ void DealPlacesKernel(TokenExperts experts, ExpertRange here, ExpertGroups groups) {
  const int expert = static_cast<int>(blockIdx.x);
  const int64_t num_pairs = experts.num_tokens * experts.k;
  int32_t next = groups.begin[expert];
  for (int64_t first = 0; first < num_pairs; first += kWarpSize) {
    const int64_t pair = first + threadIdx.x;
    const bool is_ours = pair < num_pairs && experts.ids[pair] == here.first + expert;
    const Rank rank = RankInWarp(is_ours);
    if (is_ours) {
      groups.places[pair] = next + rank.before;
      groups.tokens[next + rank.before] = static_cast<int32_t>(pair / experts.k);
    }
    next += rank.all;
  }
}

__global__ void ForgetPlacesKernel(int64_t num_pairs, int32_t* places) {
  const int64_t pair = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pair < num_pairs) places[pair] = -1;
}

}  // namespace

cudaError_t LaunchGroupByExpert(const TokenExperts& experts, ExpertRange here, const ExpertGroups& groups,
                                cudaStream_t stream) {
  const int64_t num_pairs = experts.num_tokens * experts.k;
  const LaunchShape pairs{.grid = dim3(static_cast<unsigned>((num_pairs + kThreads - 1) / kThreads)),
                          .block = dim3(kThreads)};
  const LaunchShape warps{.grid = dim3(static_cast<unsigned>(here.count)), .block = dim3(kWarpSize)};
  cudaError_t error = Launch(ForgetPlacesKernel, pairs, stream, num_pairs, groups.places);
  if (error == cudaSuccess) {
    error = Launch(CountPairsKernel, warps, stream, static_cast<const int32_t*>(experts.ids), num_pairs, here,
                   groups.begin);
  }
  if (error == cudaSuccess) {
    error = Launch(SumCountsKernel, {.grid = dim3(1), .block = dim3(1)}, stream, here.count, groups);
  }
  if (error == cudaSuccess) error = Launch(DealPlacesKernel, warps, stream, experts, here, groups);
  return error;
}

}  // namespace weft::cuda
