#include "engine/weight_bytes.h"

#include "engine/tensor_list.h"

namespace weft {
namespace {

// Values, and floats for the scales and the bias of each row.
int64_t LinearBytes(const LinearSpec& spec, DType dtype) {
  int64_t rows = 0;
  int64_t values = 0;
  for (const TensorSpec& part : spec.parts) {
    rows += part.row_part.count;
    values += part.row_part.count * part.col_part.count;
  }
  const int64_t floats = (dtype == DType::kI8 ? rows : 0) + (spec.biases.empty() ? 0 : rows);
  return values * static_cast<int64_t>(DTypeBytes(dtype)) + floats * static_cast<int64_t>(sizeof(float));
}

int64_t NormBytes(const TensorSpec& spec) { return spec.rows * static_cast<int64_t>(sizeof(float)); }

int64_t MlpBytes(const MlpSpec& spec, DType dtype) {
  return LinearBytes(spec.gate_up, dtype) + LinearBytes(spec.down, dtype);
}

int64_t MoeBytes(const MoeSpec& spec, const StoredDTypes& dtypes) {
  int64_t bytes = LinearBytes(spec.router, dtypes.exact);
  for (const MlpSpec& expert : spec.experts) bytes += MlpBytes(expert, dtypes.linear);
  if (!spec.shared.has_value()) return bytes;
  return bytes + LinearBytes(spec.shared->gate, dtypes.exact) + MlpBytes(spec.shared->mlp, dtypes.linear);
}

int64_t LayerBytes(const LayerSpec& spec, const StoredDTypes& dtypes) {
  int64_t bytes = NormBytes(spec.input_norm) + NormBytes(spec.post_norm);
  bytes += LinearBytes(spec.qkv, dtypes.linear) + LinearBytes(spec.output, dtypes.linear);
  if (spec.q_norm.has_value()) bytes += NormBytes(*spec.q_norm);
  if (spec.k_norm.has_value()) bytes += NormBytes(*spec.k_norm);
  if (spec.mlp.has_value()) bytes += MlpBytes(*spec.mlp, dtypes.linear);
  if (spec.moe.has_value()) bytes += MoeBytes(*spec.moe, dtypes);
  return bytes;
}

}  // namespace

StoredDTypes StoredDTypesFor(const ModelConfig& config, const WeightOptions& options) {
  const DType linear = options.dtype.value_or(config.dtype);
  return {linear, linear == DType::kI8 ? config.dtype : linear};
}

int64_t WeightBytes(const ModelConfig& config, const ParallelPlan& plan, const WeightOptions& options) {
  const StoredDTypes dtypes = StoredDTypesFor(config, options);
  const ModelSpec spec = ListTensors(config, plan);
  int64_t bytes = 0;
  if (spec.embedding.has_value()) bytes += LinearBytes(*spec.embedding, dtypes.exact);
  for (const LayerSpec& layer : spec.layers) bytes += LayerBytes(layer, dtypes);
  if (spec.final_norm.has_value()) bytes += NormBytes(*spec.final_norm);
  if (spec.head.has_value()) {
    bytes += LinearBytes(*spec.head, config.tie_word_embeddings ? dtypes.exact : dtypes.linear);
  }
  return bytes;
}

}  // namespace weft
