#include "engine/weights.h"

#include <cstring>
#include <utility>

#include "engine/tensor_list.h"
#include "engine/tensor_source.h"
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

// Moves tensors from a source onto a device, one linear or norm at a time.
class WeightLoader {
 public:
  // `exact_dtype`: of what isn't quantised.
  WeightLoader(const TensorSource& source, DType exact_dtype, Backend& backend)
      : source_(source), exact_dtype_(exact_dtype), backend_(backend) {}

  absl::StatusOr<Weight> Linear(const LinearSpec& spec, DType dtype) const {
    std::vector<HostTensor> tensors;
    std::vector<HostMatrix> parts;
    for (const TensorSpec& part : spec.parts) {
      ASSIGN_OR_RETURN(HostTensor tensor, source_(part));
      parts.push_back({tensor.data.get(), tensor.dtype, part.row_part.count, part.col_part.count});
      tensors.push_back(std::move(tensor));
    }
    ASSIGN_OR_RETURN(const std::vector<float> bias, Floats(spec.biases));
    return backend_.MakeWeight(parts, bias, dtype);
  }

  absl::StatusOr<Buffer> Norm(const TensorSpec& spec) const {
    ASSIGN_OR_RETURN(const std::vector<float> values, Floats({&spec, 1}));
    ASSIGN_OR_RETURN(Buffer buffer, backend_.Allocate(values.size() * sizeof(float)));
    backend_.CopyFromHost(buffer.data(), values.data(), values.size() * sizeof(float));
    RETURN_IF_ERROR(backend_.Synchronize());  // `values` must outlive the copy
    return buffer;
  }

  absl::StatusOr<LayerWeights> Layer(const LayerSpec& spec, DType dtype) const {
    LayerWeights layer;
    ASSIGN_OR_RETURN(layer.input_norm, Norm(spec.input_norm));
    ASSIGN_OR_RETURN(layer.qkv, Linear(spec.qkv, dtype));
    if (spec.q_norm.has_value()) {
      ASSIGN_OR_RETURN(layer.q_norm, Norm(*spec.q_norm));
    }
    if (spec.k_norm.has_value()) {
      ASSIGN_OR_RETURN(layer.k_norm, Norm(*spec.k_norm));
    }
    ASSIGN_OR_RETURN(layer.output, Linear(spec.output, dtype));
    ASSIGN_OR_RETURN(layer.post_norm, Norm(spec.post_norm));
    if (spec.mlp.has_value()) {
      ASSIGN_OR_RETURN(layer.gate_up, Linear(spec.mlp->gate_up, dtype));
      ASSIGN_OR_RETURN(layer.down, Linear(spec.mlp->down, dtype));
    }
    if (spec.moe.has_value()) {
      const MoeLoadOptions options{dtype, exact_dtype_};
      const auto load = [this](const LinearSpec& linear, DType type) { return Linear(linear, type); };
      ASSIGN_OR_RETURN(layer.moe, LoadMoeWeights(*spec.moe, options, load, backend_));
    }
    return layer;
  }

 private:
  // The tensors' elements, one tensor after the other.
  absl::StatusOr<std::vector<float>> Floats(absl::Span<const TensorSpec> specs) const {
    std::vector<float> values;
    for (const TensorSpec& spec : specs) {
      ASSIGN_OR_RETURN(const HostTensor tensor, source_(spec));
      AppendFloats(tensor, values);
    }
    return values;
  }

  const TensorSource& source_;
  const DType exact_dtype_;
  Backend& backend_;
};

}  // namespace

absl::StatusOr<ModelWeights> LoadWeights(const std::string& model_dir, const ModelConfig& config,
                                         const ParallelPlan& plan, const WeightOptions& options, Backend& backend) {
  const ModelSpec spec = ListTensors(config, plan);
  TensorSource source = DummyTensors(options.dummy_seed);
  if (options.format == LoadFormat::kSafetensors) {
    ASSIGN_OR_RETURN(source, OpenTensors(model_dir, config));
  }
  const DType linear_dtype = options.dtype.value_or(config.dtype);
  const DType exact_dtype = linear_dtype == DType::kI8 ? config.dtype : linear_dtype;
  const WeightLoader loader(source, exact_dtype, backend);

  ModelWeights weights;
  if (spec.embedding.has_value()) {
    ASSIGN_OR_RETURN(weights.embedding, loader.Linear(*spec.embedding, exact_dtype));
  }
  for (const LayerSpec& layer_spec : spec.layers) {
    ASSIGN_OR_RETURN(LayerWeights layer, loader.Layer(layer_spec, linear_dtype));
    weights.layers.push_back(std::move(layer));
  }
  if (spec.final_norm.has_value()) {
    ASSIGN_OR_RETURN(weights.final_norm, loader.Norm(*spec.final_norm));
  }
  if (spec.head.has_value()) {
    const DType head_dtype = config.tie_word_embeddings ? exact_dtype : linear_dtype;
    ASSIGN_OR_RETURN(weights.head, loader.Linear(*spec.head, head_dtype));
  }
  return weights;
}

}  // namespace weft
