// Which of a row's tokens are kept, without sorting them: the rank of the last one is found digit by digit, from what a
// histogram says of each digit. Histograms are of integers, so neither the order of threads nor their number shows.
// Cost: a pass over the row for each digit; past the first a pass does nothing for most tokens.
#pragma once

#include <cstdint>

#include "kernels/cuda/token_rank.cuh"
#include "kernels/cuda/token_weight.cuh"

namespace weft::cuda {

inline constexpr int kNumBins = 1 << kDigitBits;

// Sums of 64 bits in halves: shared memory adds 32 at once.
struct SelectMemory {
  uint32_t low[kNumBins];
  uint32_t high[kNumBins];
  int32_t digit;
  uint64_t above;
  uint64_t in_digit;
};

__device__ __forceinline__ void AddToBin(SelectMemory& shared, int bin, uint64_t amount) {
  const auto low = static_cast<uint32_t>(amount);
  const uint32_t before = atomicAdd(&shared.low[bin], low);
  const uint32_t carry = before + low < low ? 1 : 0;
  const uint32_t high = static_cast<uint32_t>(amount >> 32) + carry;
  if (high != 0) atomicAdd(&shared.high[bin], high);
}

__device__ __forceinline__ uint64_t InBin(const SelectMemory& shared, int bin) {
  return uint64_t{shared.high[bin]} << 32 | shared.low[bin];
}

// The first lane at which the sum of its value and those of all lanes before reaches `target`; kWarpSize: none.
struct Crossing {
  int lane = 0;
  uint64_t before = 0;  // the sum of the lanes before it
};
__device__ __forceinline__ Crossing FindCrossing(uint64_t value, uint64_t target) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  uint64_t sum = value;
#pragma unroll
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const uint64_t other = __shfl_up_sync(kAllLanes, sum, distance);
    if (lane >= distance) sum += other;
  }
  const unsigned votes = __ballot_sync(kAllLanes, sum >= target);
  const int first = votes == 0 ? kWarpSize : __ffs(static_cast<int>(votes)) - 1;
  return {first, __shfl_sync(kAllLanes, sum - value, first % kWarpSize)};
}

// The first warp: the greatest digit at which the bins from the top on reach `target`; -1: they don't.
__device__ __forceinline__ void FindDigit(uint64_t target, SelectMemory& shared) {
  constexpr int kBinsOfALane = kNumBins / kWarpSize;
  static_assert(kBinsOfALane == 2 * kWarpSize);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int last_of_lane = kNumBins - 1 - lane * kBinsOfALane;
  uint64_t of_lane = 0;
  // Each lane begins elsewhere: no two read the same bank.
  for (int i = 0; i < kBinsOfALane; ++i) of_lane += InBin(shared, last_of_lane - (i + lane) % kBinsOfALane);
  const Crossing chunk = FindCrossing(of_lane, target);
  if (chunk.lane == kWarpSize) {
    if (lane == 0) shared.digit = -1;
    return;
  }
  const int upper = kNumBins - 1 - chunk.lane * kBinsOfALane - 2 * lane;
  const uint64_t in_upper = InBin(shared, upper), in_lower = InBin(shared, upper - 1);
  const uint64_t rest = target - chunk.before;
  const Crossing pair = FindCrossing(in_upper + in_lower, rest);
  if (lane != pair.lane) return;
  const bool is_upper = pair.before + in_upper >= rest;
  shared.digit = is_upper ? upper : upper - 1;
  shared.above = chunk.before + pair.before + (is_upper ? 0 : in_upper);
  shared.in_digit = is_upper ? in_upper : in_lower;
}

// How far a search has come.
struct Search {
  uint64_t prefix = 0;  // the digits found
  int num_digits = 0;   // how many
  uint64_t rest = 0;    // what is to be reached among the tokens of this prefix
  uint64_t there = 0;   // what they have

  __device__ __forceinline__ int NumLowBits() const { return (kNumDigits - num_digits) * kDigitBits; }
  // The least rank of this prefix.
  __device__ __forceinline__ uint64_t Least() const { return prefix << NumLowBits(); }
};

// Finds one digit more. All threads of a block of whole warps call this, and all get the result. amount(rank, i): what
// token i adds, whose rank that is. False: all together don't reach search.rest.
template <typename Amount>
__device__ __forceinline__ bool Narrow(const TokenLogits& row, const Amount& amount, Search& search,
                                       SelectMemory& shared) {
  const int shift = search.NumLowBits() - kDigitBits;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kNumBins; i += static_cast<int>(blockDim.x)) {
    shared.low[i] = shared.high[i] = 0;
  }
  __syncthreads();
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < row.count; i += static_cast<int>(blockDim.x)) {
    const uint64_t rank = RankOf(row.logits[i], TokenAt(row, i));
    if (rank >> (shift + kDigitBits) != search.prefix) continue;
    const uint64_t of_token = amount(rank, i);
    if (of_token != 0) AddToBin(shared, static_cast<int>((rank >> shift) % kNumBins), of_token);
  }
  __syncthreads();
  if (threadIdx.x < kWarpSize) FindDigit(search.rest, shared);
  __syncthreads();
  if (shared.digit < 0) return false;
  search.prefix = search.prefix << kDigitBits | static_cast<uint64_t>(shared.digit);
  ++search.num_digits;
  search.rest -= shared.above;
  search.there = shared.in_digit;
  return true;
}

// The least rank of the tokens of `search` when as many of the best are kept as it has to reach; 0: there are no more.
__device__ __forceinline__ uint64_t LeastOfBest(const TokenLogits& row, Search search, SelectMemory& shared) {
  const auto one = [](uint64_t, int) -> uint64_t { return 1; };
  while (search.num_digits < kNumDigits) {
    if (!Narrow(row, one, search, shared)) return 0;
    if (search.there == search.rest) break;  // all of this prefix are kept
  }
  return search.Least();
}

// Weights as integers, for sums that are exact: a row of kMaxTokens weights of 1 still fits.
inline constexpr float kWeightUnits = 0x1p41f;
__device__ __forceinline__ uint64_t UnitsOf(float weight) { return __float2ull_rn(weight * kWeightUnits); }

// The least rank of the fewest best tokens whose weights reach `target` units; 0: all together don't. units(rank, i):
// the weight of token i, or 0 for one that is no longer kept.
template <typename Units>
__device__ __forceinline__ uint64_t LeastOfNucleus(const TokenLogits& row, uint64_t target, const Units& units,
                                                   const TokenWeight& weigh, SelectMemory& shared) {
  Search search{.rest = target};
  while (search.num_digits < kNumLogitDigits) {
    if (!Narrow(row, units, search, shared)) return 0;
  }
  // What is left has one logit, and so one weight.
  const uint64_t of_each = UnitsOf(weigh(LogitOfRank(search.Least())));
  search.rest = (search.rest + of_each - 1) / of_each;
  search.there /= of_each;
  return search.there == search.rest ? search.Least() : LeastOfBest(row, search, shared);
}

}  // namespace weft::cuda
