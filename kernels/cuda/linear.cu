// out = x W^T + b for few rows: each weight is read once for kRows rows, and used kRows times.
// Cost: memory, the bytes of the weights for each kRows rows. kI8 weights meet rows of bytes, and sum exactly.
#include "kernels/cuda/dtype_dispatch.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

constexpr int kWarps = 8;  // outputs of a block
constexpr int kRows = 4;   // rows of a block

// Where a block's rows are, and what they go through.
struct RowTiles {
  const int32_t* rows = nullptr;
  const WeightView* table = nullptr;
  const int32_t* begin = nullptr;  // null: all of `count`
  WeightView weight;
  int64_t count = 0;
};

// W's elements and x's are multiplied as Product wants them, kVector at a time.
template <typename X, typename W, int kVector>
struct FloatProduct {
  using Sum = float;
  static __device__ __forceinline__ void Add(const X* x, const W* w, float& sum) {
    float left[kVector], right[kVector];
    Load(x, left);
    Load(w, right);
#pragma unroll
    for (int j = 0; j < kVector; ++j) sum = fmaf(left[j], right[j], sum);
  }
};

template <int kVector>
struct IntegerProduct {
  using Sum = int32_t;
  static __device__ __forceinline__ void Add(const int8_t* x, const int8_t* w, int32_t& sum) {
    const auto left = *reinterpret_cast<const Pack<int8_t, kVector>*>(x);
    const auto right = *reinterpret_cast<const Pack<int8_t, kVector>*>(w);
#pragma unroll
    for (int j = 0; j < kVector; ++j) sum += int32_t{left.values[j]} * right.values[j];
  }
};

// All lanes get the sum over the warp: of floats in one tree, of integers in any.
__device__ __forceinline__ float SumOfLanes(float x) { return WarpSum(x); }
__device__ __forceinline__ float SumOfLanes(int32_t x) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return static_cast<float>(x);
}

// A warp an output, for kRows rows. Lane l takes elements l * kVector + j, then those 32 * kVector further on: an order
// that depends on k alone, so a row's bits don't depend on the other rows.
template <typename X, typename W, typename Out, typename Product, int kVector>
__global__ void __launch_bounds__(kWarps* kWarpSize)
    LinearKernel(Matrix<const X> x, const float* x_scale, RowTiles tiles, int64_t k, Matrix<Out> out, int64_t n) {
  const int64_t output = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpSize;
  const int expert = static_cast<int>(blockIdx.z);
  const int64_t begin = tiles.begin == nullptr ? 0 : tiles.begin[expert];
  const int64_t end = tiles.begin == nullptr ? tiles.count : tiles.begin[expert + 1];
  const int64_t first = begin + int64_t{blockIdx.y} * kRows;
  if (output >= n || first >= end) return;
  const WeightView weight = tiles.table == nullptr ? tiles.weight : tiles.table[expert];
  const int lane = threadIdx.x % kWarpSize;

  int64_t sources[kRows];
  const X* x_rows[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t place = min(first + r, end - 1);
    sources[r] = tiles.rows == nullptr ? place : tiles.rows[place];
    x_rows[r] = x.Row(sources[r]);
  }
  const W* const w = static_cast<const W*>(weight.data) + output * k;
  typename Product::Sum sums[kRows] = {};
  for (int64_t i = int64_t{lane} * kVector; i < k; i += kWarpSize * kVector) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) Product::Add(x_rows[r] + i, w + i, sums[r]);
  }
  const float bias = weight.bias == nullptr ? 0 : weight.bias[output];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float sum = SumOfLanes(sums[r]);
    if (weight.scale != nullptr) sum *= x_scale[sources[r]] * weight.scale[output];
    if (lane == 0 && first + r < end) out.Row(first + r)[output] = FromFloat<Out>(sum + bias);
  }
}

template <typename X, typename W, typename Out, template <int> typename ProductOf>
cudaError_t LaunchFor(const LinearArgs& args, cudaStream_t stream) {
  const int64_t k = args.x.cols, n = args.out.cols, m = args.out.rows;
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>((n + kWarps - 1) / kWarps), static_cast<unsigned>((m + kRows - 1) / kRows),
                   static_cast<unsigned>(args.num_experts)),
      .block = dim3(kWarps * kWarpSize)};
  const RowTiles tiles{args.rows, args.table, args.begin, args.weight, m};
  const auto kernel =
      AreFours(args.x) ? LinearKernel<X, W, Out, ProductOf<4>, 4> : LinearKernel<X, W, Out, ProductOf<1>, 1>;
  return Launch(kernel, shape, stream, MatrixOf<const X>(args.x), args.x_scale, tiles, k, MatrixOf<Out>(args.out), n);
}

template <typename X, typename W>
struct Floats {
  template <int kVector>
  using ProductOf = FloatProduct<X, W, kVector>;
};

template <typename X, typename W>
cudaError_t LaunchFloats(const LinearArgs& args, cudaStream_t stream) {
  if (args.out.dtype == DType::kF32) {
    return LaunchFor<X, W, float, Floats<X, W>::template ProductOf>(args, stream);
  }
  return LaunchFor<X, W, X, Floats<X, W>::template ProductOf>(args, stream);
}

}  // namespace

cudaError_t LaunchLinear(const LinearArgs& args, cudaStream_t stream) {
  if (args.weight_dtype == DType::kI8) {
    WEFT_RETURN_FOR(args.out.dtype, LaunchFor<int8_t, int8_t, T, IntegerProduct>(args, stream));
  }
  if (args.weight_dtype == args.x.dtype) WEFT_RETURN_FOR(args.x.dtype, LaunchFloats<T, T>(args, stream));
  // Routers and embeddings may stay as exact as the checkpoint has them.
  if (args.weight_dtype == DType::kF32) WEFT_RETURN_FOR(args.x.dtype, LaunchFloats<T, float>(args, stream));
  if (args.x.dtype == DType::kF32) WEFT_RETURN_FOR(args.weight_dtype, LaunchFloats<float, T>(args, stream));
  return cudaErrorInvalidValue;
}

}  // namespace weft::cuda
