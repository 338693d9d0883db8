#include "engine/weights.h"

#include <array>
#include <cstring>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/tensor_list.h"
#include "engine/tensor_read_ahead.h"
#include "engine/tensor_source.h"
#include "engine/weight_bytes.h"
#include "kernels/half.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

void AppendFloats(const HostTensor& tensor, std::vector<float>& out) {
  const size_t width = DTypeBytes(tensor.dtype);
  for (size_t i = 0; i < tensor.count; ++i) {
    const std::byte* element = tensor.data.get() + i * width;
    if (tensor.dtype == DType::kF32) {
      float value;
      std::memcpy(&value, element, sizeof(value));
      out.push_back(value);
    } else {
      uint16_t half;
      std::memcpy(&half, element, sizeof(half));
      out.push_back(tensor.dtype == DType::kBF16 ? BF16ToF32(half) : F16ToF32(half));
    }
  }
}

// The loading thread's time, by phase. Phases don't nest.
class PhaseClock {
 public:
  template <typename Work>
  auto Time(size_t phase, Work work) {
    const absl::Time begin = absl::Now();
    auto result = work();
    times_[phase] += absl::Now() - begin;
    return result;
  }
  void Report(const LoadObserver& observer) const {
    if (observer.on_phase == nullptr) return;
    for (size_t i = 0; i < times_.size(); ++i) observer.on_phase(kLoadPhases[i], times_[i]);
  }

 private:
  std::array<absl::Duration, std::size(kLoadPhases)> times_;
};

constexpr size_t kVerify = 0;
constexpr size_t kRead = 1;
constexpr size_t kConvert = 2;
constexpr size_t kDigest = 3;

// Moves one rank's tensors onto a device, one linear or norm at a time, in the order of AllTensors.
class WeightLoader {
 public:
  WeightLoader(TensorReadAhead& tensors, StoredDTypes dtypes, Backend& backend, PhaseClock& clock)
      : tensors_(tensors), dtypes_(dtypes), backend_(backend), clock_(clock) {}

  absl::StatusOr<ModelWeights> Load(const ModelSpec& spec, const ModelConfig& config) {
    ModelWeights weights;
    if (spec.embedding.has_value()) {
      ASSIGN_OR_RETURN(weights.embedding, Linear(*spec.embedding, dtypes_.exact));
    }
    for (const LayerSpec& layer_spec : spec.layers) {
      ASSIGN_OR_RETURN(LayerWeights layer, Layer(layer_spec));
      weights.layers.push_back(std::move(layer));
    }
    if (spec.final_norm.has_value()) {
      ASSIGN_OR_RETURN(weights.final_norm, Norm(*spec.final_norm));
    }
    if (spec.head.has_value()) {
      ASSIGN_OR_RETURN(weights.head, Linear(*spec.head, config.tie_word_embeddings ? dtypes_.exact : dtypes_.linear));
    }
    weights.digests = std::move(digests_);
    return weights;
  }

 private:
  absl::StatusOr<Weight> Linear(const LinearSpec& spec, DType dtype) {
    std::vector<HostTensor> tensors;
    std::vector<HostMatrix> parts;
    for (const TensorSpec& part : spec.parts) {
      ASSIGN_OR_RETURN(HostTensor tensor, Take(part));
      parts.push_back({tensor.data.get(), tensor.dtype, part.row_part.count, part.col_part.count});
      tensors.push_back(std::move(tensor));
    }
    ASSIGN_OR_RETURN(const std::vector<float> bias, Floats(spec.biases));
    ASSIGN_OR_RETURN(Weight weight, clock_.Time(kConvert, [&] { return backend_.MakeWeight(parts, bias, dtype); }));
    RETURN_IF_ERROR(AddDigest(clock_.Time(kDigest, [&] { return DigestWeight(spec, weight, backend_); })));
    return weight;
  }

  absl::StatusOr<Buffer> Norm(const TensorSpec& spec) {
    ASSIGN_OR_RETURN(const std::vector<float> values, Floats({&spec, 1}));
    ASSIGN_OR_RETURN(Buffer buffer, backend_.Allocate(values.size() * sizeof(float)));
    backend_.CopyFromHost(buffer.data(), values.data(), values.size() * sizeof(float));
    RETURN_IF_ERROR(backend_.Synchronize());  // `values` must outlive the copy
    RETURN_IF_ERROR(AddDigest(DigestNorm(spec, buffer, backend_)));
    return buffer;
  }

  absl::StatusOr<LayerWeights> Layer(const LayerSpec& spec) {
    LayerWeights layer;
    ASSIGN_OR_RETURN(layer.input_norm, Norm(spec.input_norm));
    ASSIGN_OR_RETURN(layer.qkv, Linear(spec.qkv, dtypes_.linear));
    if (spec.q_norm.has_value()) {
      ASSIGN_OR_RETURN(layer.q_norm, Norm(*spec.q_norm));
    }
    if (spec.k_norm.has_value()) {
      ASSIGN_OR_RETURN(layer.k_norm, Norm(*spec.k_norm));
    }
    ASSIGN_OR_RETURN(layer.output, Linear(spec.output, dtypes_.linear));
    ASSIGN_OR_RETURN(layer.post_norm, Norm(spec.post_norm));
    if (spec.mlp.has_value()) {
      ASSIGN_OR_RETURN(layer.gate_up, Linear(spec.mlp->gate_up, dtypes_.linear));
      ASSIGN_OR_RETURN(layer.down, Linear(spec.mlp->down, dtypes_.linear));
    }
    if (spec.moe.has_value()) {
      const MoeLoadOptions options{dtypes_.linear, dtypes_.exact};
      const auto load = [this](const LinearSpec& linear, DType type) { return Linear(linear, type); };
      ASSIGN_OR_RETURN(layer.moe, LoadMoeWeights(*spec.moe, options, load, backend_));
    }
    return layer;
  }

  absl::StatusOr<HostTensor> Take(const TensorSpec& tensor) {
    return clock_.Time(kRead, [&] { return tensors_.Next(tensor); });
  }

  // The tensors' elements, one tensor after the other.
  absl::StatusOr<std::vector<float>> Floats(absl::Span<const TensorSpec> specs) {
    std::vector<float> values;
    for (const TensorSpec& spec : specs) {
      ASSIGN_OR_RETURN(const HostTensor tensor, Take(spec));
      AppendFloats(tensor, values);
    }
    return values;
  }

  absl::Status AddDigest(absl::StatusOr<TensorDigest> digest) {
    RETURN_IF_ERROR(digest.status());
    digests_.push_back(*std::move(digest));
    return absl::OkStatus();
  }

  TensorReadAhead& tensors_;
  const StoredDTypes dtypes_;
  Backend& backend_;
  PhaseClock& clock_;
  std::vector<TensorDigest> digests_;
};

// Bytes of the matrices' parts, as the source has them.
int64_t MatrixBytes(absl::Span<const TensorSpec* const> tensors, DType dtype) {
  int64_t elements = 0;
  for (const TensorSpec* tensor : tensors) {
    if (tensor->role == TensorSpec::Role::kMatrix) elements += tensor->row_part.count * tensor->col_part.count;
  }
  return elements * static_cast<int64_t>(DTypeBytes(dtype));
}

}  // namespace

absl::StatusOr<ModelWeights> LoadWeights(const ModelDir& dir, const ModelConfig& config, const ParallelPlan& plan,
                                         const WeightOptions& options, Backend& backend) {
  ASSIGN_OR_RETURN(std::vector<ModelWeights> ranks, LoadRankWeights(dir, config, {&plan, 1}, options, backend));
  return std::move(ranks.front());
}

absl::StatusOr<std::vector<ModelWeights>> LoadRankWeights(const ModelDir& dir, const ModelConfig& config,
                                                          absl::Span<const ParallelPlan> plans,
                                                          const WeightOptions& options, Backend& backend) {
  std::vector<ModelSpec> specs;
  for (const ParallelPlan& plan : plans) specs.push_back(ListTensors(config, plan));
  std::vector<const TensorSpec*> order;  // into `specs`, which is complete
  for (const ModelSpec& spec : specs) {
    const std::vector<const TensorSpec*> tensors = AllTensors(spec);
    order.insert(order.end(), tensors.begin(), tensors.end());
  }

  PhaseClock clock;
  LoadMeter meter(options.observer.on_bytes);
  const bool is_made_up = options.format == LoadFormat::kDummy;
  meter.Expect(MatrixBytes(order, is_made_up ? DType::kBF16 : config.dtype));
  std::unique_ptr<TensorSource> source = DummyTensors(options.dummy_seed);
  if (!is_made_up) {
    ASSIGN_OR_RETURN(source, clock.Time(kVerify, [&] { return OpenTensors(dir, config, &meter); }));
  }

  TensorReadAhead tensors(*source, std::move(order), meter);
  std::vector<ModelWeights> ranks;
  for (const ModelSpec& spec : specs) {
    ASSIGN_OR_RETURN(ModelWeights weights,
                     WeightLoader(tensors, StoredDTypesFor(config, options), backend, clock).Load(spec, config));
    ranks.push_back(std::move(weights));
  }
  clock.Report(options.observer);
  return ranks;
}

}  // namespace weft
