#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/status_macros.h"
#include "kernels/stored_row.h"

namespace weft::cuda {
namespace {

WeightView ViewOf(const Weight& weight) {
  return {weight.data.data(), weight.scale.As<const float>(), weight.bias.As<const float>()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaBackend>> CudaBackend::Open(const CudaOptions& options) {
  int num_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&num_devices);
  if (error != cudaSuccess) return absl::UnavailableError(absl::StrCat("CUDA: ", cudaGetErrorString(error)));
  if (options.device < 0 || options.device >= num_devices) {
    return absl::UnavailableError(absl::StrCat("CUDA: device ", options.device, " is not one of ", num_devices));
  }
  RETURN_IF_ERROR(ToStatus(cudaSetDevice(options.device), "CUDA"));
  cudaStream_t stream = nullptr;
  RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "CUDA: stream"));
  return std::unique_ptr<CudaBackend>(new CudaBackend(options, stream));
}

CudaBackend::~CudaBackend() { cudaStreamDestroy(stream_); }

void CudaBackend::Check(const absl::Status& status, absl::string_view op, const Tensor& shape) {
  if (status.ok() || !failure_.ok()) return;
  failure_ = absl::Status(status.code(), absl::StrCat("device ", options_.device, ", ", op, " [", shape.rows, ", ",
                                                      shape.cols, "]: ", status.message()));
}

void CudaBackend::Check(cudaError_t error, absl::string_view op, const Tensor& shape) {
  if (error != cudaSuccess) Check(ToStatus(error, "CUDA"), op, shape);
}

absl::StatusOr<Buffer> CudaBackend::Allocate(size_t bytes) {
  void* data = nullptr;
  const size_t at_least = std::max<size_t>(bytes, 1);
  RETURN_IF_ERROR(ToStatus(cudaMalloc(&data, at_least), absl::StrCat("no device memory left for ", bytes, " bytes")));
  Buffer buffer(data, bytes, [](void* p) { cudaFree(p); });
  RETURN_IF_ERROR(ToStatus(cudaMemsetAsync(data, 0, at_least, stream_), "CUDA: memset"));
  return buffer;
}

void CudaBackend::CopyFromHost(void* device, const void* host, size_t bytes) {
  if (bytes == 0) return;
  Check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_), "CopyFromHost", {});
}

void CudaBackend::CopyToHost(void* host, const void* device, size_t bytes) {
  if (bytes == 0) return;
  Check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "CopyToHost", {});
}

absl::Status CudaBackend::Synchronize() {
  Check(cudaStreamSynchronize(stream_), "Synchronize", {});
  return std::exchange(failure_, absl::OkStatus());
}

absl::StatusOr<Buffer> CudaBackend::Upload(const void* host, size_t bytes) {
  ASSIGN_OR_RETURN(Buffer buffer, Allocate(bytes));
  CopyFromHost(buffer.data(), host, bytes);
  return buffer;
}

absl::StatusOr<Weight> CudaBackend::MakeWeight(absl::Span<const HostMatrix> parts, absl::Span<const float> bias,
                                               DType dtype) {
  RETURN_IF_ERROR(CheckParts(parts, bias, dtype));
  const StackedRows rows(parts);
  // Kernels multiply one type of 16 bits; the other would lose bits in it.
  const bool is_foreign =
      DTypeBytes(dtype) == 2 && DTypeBytes(options_.activations) == 2 && dtype != options_.activations;
  if (is_foreign) dtype = DType::kF32;
  Weight weight;
  weight.dtype = dtype;
  weight.out_features = rows.num_rows();
  weight.in_features = parts[0].cols;
  const auto n = static_cast<size_t>(weight.out_features), k = static_cast<size_t>(weight.in_features);
  const size_t row_bytes = k * DTypeBytes(dtype);
  std::vector<float> row(k), scales(n);
  std::vector<char> stored(n * row_bytes);
  for (size_t i = 0; i < n; ++i) {
    rows.Read(static_cast<int64_t>(i), row.data());
    scales[i] = StoreRow(row.data(), weight.in_features, dtype, &stored[i * row_bytes]).scale;
    if (std::isnan(scales[i])) return NotFinite(static_cast<int64_t>(i));
  }
  ASSIGN_OR_RETURN(weight.data, Upload(stored.data(), stored.size()));
  if (dtype == DType::kI8) {
    ASSIGN_OR_RETURN(weight.scale, Upload(scales.data(), n * sizeof(float)));
  }
  if (!bias.empty()) {
    ASSIGN_OR_RETURN(weight.bias, Upload(bias.data(), n * sizeof(float)));
  }
  RETURN_IF_ERROR(Synchronize());
  return weight;
}

void CudaBackend::Embed(const int32_t* token_ids, int32_t first_token, const Weight& table, Tensor out) {
  Check(LaunchEmbed(token_ids, first_token, table, out, stream_), "Embed", out);
}

void CudaBackend::Add(Tensor x, Tensor delta) { Check(LaunchAdd(x, delta, stream_), "Add", x); }

void CudaBackend::RmsNorm(Tensor x, const float* weight, float eps, Tensor out) {
  Check(LaunchRmsNorm(x, {}, weight, eps, out, stream_), "RmsNorm", x);
}

void CudaBackend::AddRmsNorm(Tensor x, Tensor delta, const float* weight, float eps, Tensor out) {
  Check(LaunchRmsNorm(x, delta, weight, eps, out, stream_), "AddRmsNorm", x);
}

// kI8 weights meet bytes: x is quantised first.
void CudaBackend::LinearOf(LinearArgs args, absl::string_view op) {
  const Tensor x = args.x;
  if (args.weight_dtype == DType::kI8) {
    const auto rows = static_cast<size_t>(x.rows);
    const size_t scale_bytes = (rows * sizeof(float) + 15) / 16 * 16;
    const size_t bytes = scale_bytes + rows * static_cast<size_t>(x.cols);
    if (quantized_.bytes() < bytes) {
      absl::StatusOr<Buffer> larger = Allocate(bytes);
      if (!larger.ok()) return Check(cudaErrorMemoryAllocation, op, x);
      quantized_ = *std::move(larger);
    }
    auto* const scale = quantized_.As<float>();
    auto* const q = quantized_.As<int8_t>() + scale_bytes;
    Check(LaunchQuantizeRows(x, q, scale, stream_), op, x);
    args.x = DenseTensor(q, DType::kI8, x.rows, x.cols);
    args.x_scale = scale;
  }
  Check(LaunchLinear(args, stream_), op, args.out);
}

void CudaBackend::Linear(Tensor x, const Weight& weight, Tensor out) {
  LinearOf({.x = x, .weight = ViewOf(weight), .weight_dtype = weight.dtype, .out = out}, "Linear");
}

void CudaBackend::RotateAndAppend(Tensor qkv, const AttentionHeads& heads, const QkNorm& norm,
                                  const RotaryTable& rotary, const RowMap& rows, const KvView& kv) {
  const RotateArgs args{qkv, heads, norm, rotary.cos_sin.As<const float>(), rotary.rotary_dim, rows, kv};
  Check(LaunchRotateAndAppend(args, stream_), "RotateAndAppend", qkv);
}

void CudaBackend::Attention(Tensor qkv, const AttentionArgs& args, const RowMap& rows, const KvView& kv, Tensor out) {
  Check(LaunchAttention(qkv, args, rows, kv, out, stream_), "Attention", out);
}

void CudaBackend::SwiGlu(Tensor gate_up, Tensor out) { Check(LaunchSwiGlu(gate_up, out, stream_), "SwiGlu", out); }

void CudaBackend::GatherRows(Tensor x, const int32_t* rows, Tensor out) {
  Check(LaunchGatherRows(x, rows, out, stream_), "GatherRows", out);
}

void CudaBackend::RouteTokens(Tensor logits, bool normalize, const TokenExperts& experts) {
  Check(LaunchRouteTokens(logits, normalize, experts, stream_), "RouteTokens", logits);
}

void CudaBackend::GroupByExpert(const TokenExperts& experts, ExpertRange here, const ExpertGroups& groups) {
  const Tensor pairs{.rows = experts.num_tokens, .cols = experts.k};
  Check(LaunchGroupByExpert(experts, here, groups, stream_), "GroupByExpert", pairs);
}

absl::StatusOr<ExpertWeights> CudaBackend::MakeExpertWeights(std::vector<Weight> experts) {
  if (experts.empty()) return absl::InvalidArgumentError("a mixture needs at least one expert");
  std::vector<WeightView> views;
  for (const Weight& expert : experts) {
    const Weight& first = experts[0];
    if (expert.dtype != first.dtype || expert.out_features != first.out_features ||
        expert.in_features != first.in_features) {
      return absl::InvalidArgumentError("experts of different shapes or dtypes");
    }
    views.push_back(ViewOf(expert));
  }
  ExpertWeights weights{.experts = std::move(experts), .table = {}};
  ASSIGN_OR_RETURN(weights.table, Upload(views.data(), views.size() * sizeof(WeightView)));
  RETURN_IF_ERROR(Synchronize());
  return weights;
}

void CudaBackend::GroupedLinear(Tensor x, const int32_t* rows, const int32_t* begin, const ExpertWeights& weights,
                                Tensor out) {
  LinearOf({.x = x,
            .rows = rows,
            .table = weights.table.As<const WeightView>(),
            .begin = begin,
            .num_experts = static_cast<int>(weights.experts.size()),
            .weight = {},
            .weight_dtype = weights.experts[0].dtype,
            .out = out},
           "GroupedLinear");
}

void CudaBackend::CombineExperts(Tensor x, const TokenExperts& experts, const int32_t* places, Tensor out) {
  Check(LaunchCombineExperts(x, experts, places, out, stream_), "CombineExperts", out);
}

void CudaBackend::AddGated(Tensor gate, Tensor x, Tensor out) {
  Check(LaunchAddGated(gate, x, out, stream_), "AddGated", out);
}

void CudaBackend::Sample(Tensor logits, absl::Span<const SampleArgs> args, absl::Span<SampleResult> results) {
  Check(sampler_.Sample(logits, args, results), "Sample", logits);
}

void CudaBackend::SummarizeRows(Tensor logits, int32_t first_token, absl::Span<const SampleArgs> args,
                                absl::Span<RowSummary> shares) {
  Check(sampler_.SummarizeRows({logits, first_token}, args, shares), "SummarizeRows", logits);
}

void CudaBackend::PickCandidates(Tensor logits, int32_t first_token, absl::Span<const SampleArgs> args,
                                 absl::Span<const RowSummary> rows, absl::Span<const RowDraw> draws,
                                 absl::Span<DrawCandidate> candidates) {
  Check(sampler_.PickCandidates({logits, first_token}, args, rows, draws, candidates), "PickCandidates", logits);
}

void CudaBackend::DrawFromCandidates(absl::Span<const SampleArgs> args, absl::Span<const RowSummary> rows,
                                     absl::Span<const DrawCandidate> candidates, absl::Span<RowDraw> draws,
                                     absl::Span<SampleResult> results) {
  const Tensor shape{.rows = static_cast<int64_t>(args.size()), .cols = static_cast<int64_t>(candidates.size())};
  Check(sampler_.DrawFromCandidates(args, rows, candidates, draws, results), "DrawFromCandidates", shape);
}

}  // namespace weft::cuda
