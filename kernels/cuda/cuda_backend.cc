#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/peer_communicator.h"
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
  auto backend = std::unique_ptr<CudaBackend>(new CudaBackend(options, stream));
  RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(&backend->telling_, cudaStreamNonBlocking), "CUDA: stream"));
  for (cudaEvent_t& mark : backend->marks_) {
    RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&mark, cudaEventDisableTiming), "CUDA: event"));
  }
  absl::StatusOr<std::unique_ptr<CublasLt>> library = CublasLt::Open();
  if (!library.ok() && !absl::IsUnavailable(library.status())) return library.status();
  if (library.ok()) backend->cublas_lt_ = *std::move(library);
  return backend;
}

CudaBackend::~CudaBackend() {
  loader_.reset();  // while there is a stream
  for (cudaStream_t const stream : {stream_, telling_}) {
    if (stream != nullptr) cudaStreamSynchronize(stream);
  }
  for (const auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph);
  for (cudaEvent_t const mark : marks_) {
    if (mark != nullptr) cudaEventDestroy(mark);
  }
  for (cudaStream_t const stream : {stream_, telling_}) {
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
}

void CudaBackend::UseFromThisThread() { Check(cudaSetDevice(options_.device), "SetDevice", {}); }

void CudaBackend::Check(cudaError_t error, absl::string_view op, const Tensor& shape) {
  if (error != cudaSuccess) Check(ToStatus(error, "CUDA"), op, shape);
}

void CudaBackend::Check(const absl::Status& status, absl::string_view op, const Tensor& shape) {
  if (status.ok() || !failure_.ok()) return;
  failure_ = absl::Status(status.code(), absl::StrCat("device ", options_.device, ", ", op, " [", shape.rows, ", ",
                                                      shape.cols, "]: ", status.message()));
}

absl::StatusOr<Buffer> CudaBackend::Allocate(size_t bytes) {
  void* data = nullptr;
  const size_t at_least = std::max<size_t>(bytes, 1);
  RETURN_IF_ERROR(ToStatus(cudaMalloc(&data, at_least), absl::StrCat("no device memory left for ", bytes, " bytes")));
  Buffer buffer(data, bytes, [](void* p) { cudaFree(p); });
  RETURN_IF_ERROR(ToStatus(cudaMemsetAsync(data, 0, at_least, stream_), "CUDA: memset"));
  return buffer;
}

// Pinned.
absl::StatusOr<Buffer> CudaBackend::AllocateHost(size_t bytes) {
  void* data = nullptr;
  const size_t at_least = std::max<size_t>(bytes, 1);
  RETURN_IF_ERROR(
      ToStatus(cudaMallocHost(&data, at_least), absl::StrCat("no pinned memory left for ", bytes, " bytes")));
  std::memset(data, 0, at_least);
  return Buffer(data, bytes, [](void* p) { cudaFreeHost(p); });
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

void CudaBackend::Replay(int key, absl::FunctionRef<void()> ops) {
  auto graph = graphs_.find(key);
  if (graph == graphs_.end()) {
    cudaGraphExec_t const recorded = Record(ops);
    if (recorded == nullptr) return;
    graph = graphs_.emplace(key, recorded).first;
  }
  Check(cudaGraphLaunch(graph->second, stream_), "Replay", {.rows = key});
}

// Null: it could not be recorded, and failure_ says why.
cudaGraphExec_t CudaBackend::Record(absl::FunctionRef<void()> ops) {
  Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "Record", {});
  if (!failure_.ok()) return nullptr;
  ops();
  cudaGraph_t graph = nullptr;
  Check(cudaStreamEndCapture(stream_, &graph), "Record", {});
  cudaGraphExec_t recorded = nullptr;
  if (failure_.ok()) Check(cudaGraphInstantiate(&recorded, graph, 0), "Record", {});
  if (graph != nullptr) cudaGraphDestroy(graph);
  return recorded;
}

bool CudaBackend::MarkHere(std::function<void()> reached) {
  cudaEvent_t const mark = marks_[num_marks_++ % kMaxMarks];
  Check(cudaEventRecord(mark, stream_), "MarkHere", {});
  Check(cudaStreamWaitEvent(telling_, mark, 0), "MarkHere", {});
  const auto tell = [](void* data) {
    const std::unique_ptr<std::function<void()>> function(static_cast<std::function<void()>*>(data));
    (*function)();
  };
  auto function = std::make_unique<std::function<void()>>(std::move(reached));
  const cudaError_t error = cudaLaunchHostFunc(telling_, tell, function.get());
  Check(error, "MarkHere", {});
  if (error == cudaSuccess) (void)function.release();  // tell's now
  return error != cudaSuccess;
}

absl::Status CudaBackend::AwaitMark() {
  Check(cudaEventSynchronize(marks_[num_awaited_++ % kMaxMarks]), "AwaitMark", {});
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
  ASSIGN_OR_RETURN(weight.data, Allocate(n * k * DTypeBytes(dtype)));
  if (dtype == DType::kI8) {
    ASSIGN_OR_RETURN(weight.scale, Allocate(n * sizeof(float)));
  }
  if (!bias.empty()) {
    ASSIGN_OR_RETURN(weight.bias, Upload(bias.data(), n * sizeof(float)));
  }
  if (loader_ == nullptr) {
    ASSIGN_OR_RETURN(loader_, WeightLoader::Create(stream_));
  }
  RETURN_IF_ERROR(loader_->Load(parts, dtype, weight));
  if (dtype == DType::kI8) RETURN_IF_ERROR(CheckFinite(weight));
  return weight;
}

// A row that holds anything else has no scale.
absl::Status CudaBackend::CheckFinite(const Weight& weight) {
  std::vector<float> scales(static_cast<size_t>(weight.out_features));
  CopyToHost(scales.data(), weight.scale.data(), weight.scale.bytes());
  RETURN_IF_ERROR(Synchronize());
  const auto wrong = std::find_if(scales.begin(), scales.end(), [](float scale) { return std::isnan(scale); });
  return wrong == scales.end() ? absl::OkStatus() : NotFinite(wrong - scales.begin());
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

std::unique_ptr<Communicator> CudaBackend::GroupOf(std::unique_ptr<Communicator> host) {
  return std::make_unique<PeerCommunicator>(std::move(host), *this);
}

void CudaBackend::AllReduce(Tensor x, const AllReduceArgs& args) {
  Check(LaunchAllReduce(x, args, stream_), "AllReduceSum", x);
}

void CudaBackend::Cast(Tensor x, Tensor out) { Check(LaunchCast(x, out, stream_), "Cast", x); }

bool CudaBackend::Grow(Buffer& buffer, size_t bytes, absl::string_view op, const Tensor& shape) {
  if (buffer.bytes() >= bytes) return true;
  absl::StatusOr<Buffer> larger = Allocate(bytes);
  if (!larger.ok()) Check(cudaErrorMemoryAllocation, op, shape);
  if (!larger.ok()) return false;
  buffer = *std::move(larger);
  return true;
}

// kI8 weights meet bytes: x is quantised first.
void CudaBackend::LinearOf(LinearArgs args, absl::string_view op) {
  const Tensor x = args.x;
  if (args.weight_dtype == DType::kI8) {
    const auto rows = static_cast<size_t>(x.rows);
    const size_t scale_bytes = (rows * sizeof(float) + 15) / 16 * 16;
    if (!Grow(quantized_, scale_bytes + rows * static_cast<size_t>(x.cols), op, x)) return;
    auto* const scale = quantized_.As<float>();
    auto* const q = quantized_.As<int8_t>() + scale_bytes;
    Check(LaunchQuantizeRows(x, q, scale, stream_), op, x);
    args.x = DenseTensor(q, DType::kI8, x.rows, x.cols);
    args.x_scale = scale;
  }
  constexpr int64_t kFewRows = 32;  // up to here the weights' bytes are what takes time, and our own kernels meet them
  const bool has_many = args.table == nullptr && args.rows == nullptr && x.rows > kFewRows;
  if (has_many && cublas_lt_ != nullptr && LibraryLinear(args, op)) return;
  Check(LaunchLinear(args, stream_), op, args.out);
}

// False: cuBLASLt doesn't take it, or not so that a row's bits are its own.
bool CudaBackend::LibraryLinear(const LinearArgs& args, absl::string_view op) {
  if (args.weight_dtype == DType::kI8) return ByteSums(args, op);
  if (options_.batch_invariant || args.weight_dtype != args.x.dtype || args.weight.bias != nullptr) return false;
  const Element out = args.out.dtype == DType::kF32   ? Element::kF32
                      : args.out.dtype == DType::kF16 ? Element::kF16
                                                      : Element::kBF16;
  const std::optional<Matmul> matmul =
      MatmulOf(args.x, args.weight.data, args.out.cols, args.out.data, out, args.out.row_stride);
  if (!matmul.has_value()) return false;
  const absl::Status status = cublas_lt_->Run(*matmul, args.weight.data, args.x.data, args.out.data, stream_);
  if (absl::IsUnimplemented(status)) return false;
  Check(status, op, args.out);
  return true;
}

// Products of bytes, summed in 32 bits, then scaled: so many rows at a time as sums_ holds.
bool CudaBackend::ByteSums(const LinearArgs& args, absl::string_view op) {
  const int64_t cols = args.out.cols;
  const auto fitting = static_cast<int64_t>(options_.max_sums_bytes) / (cols * static_cast<int64_t>(sizeof(int32_t)));
  const int64_t at_once = std::min(args.x.rows, std::max<int64_t>(fitting, 1));
  if (!Grow(sums_, static_cast<size_t>(at_once * cols) * sizeof(int32_t), op, args.out)) return true;
  auto* const sums = sums_.As<int32_t>();
  for (int64_t begin = 0; begin < args.x.rows; begin += at_once) {
    const Tensor x = args.x.Rows(begin, std::min(at_once, args.x.rows - begin));
    const std::optional<Matmul> matmul = MatmulOf(x, args.weight.data, cols, sums, Element::kI32, cols);
    if (!matmul.has_value()) return false;
    const absl::Status status = cublas_lt_->Run(*matmul, args.weight.data, x.data, sums, stream_);
    if (absl::IsUnimplemented(status)) return false;
    Check(status, op, args.out);
    Check(LaunchScaleSums(sums, args.x_scale + begin, args.weight, args.out.Rows(begin, x.rows), stream_), op,
          args.out);
  }
  return true;
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

void CudaBackend::ScatterPairs(const int32_t* pairs, int count, int32_t* target) {
  Check(LaunchScatterPairs(pairs, count, target, stream_), "ScatterPairs", {.rows = count, .cols = 2});
}

void CudaBackend::TakeInts(const int32_t* from, const int32_t* places, int count, int32_t* out) {
  Check(LaunchTakeInts(from, places, count, out, stream_), "TakeInts", {.rows = count, .cols = 1});
}

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
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i].keep != nullptr && draws[i].is_drawn) CopyFromHost(args[i].keep, &results[i].token, sizeof(int32_t));
  }
}

}  // namespace weft::cuda
