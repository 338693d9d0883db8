#include "engine/stored_bytes.h"

#include <cstddef>

namespace weft {
namespace {

size_t Bytes(const Weight& weight) { return weight.data.bytes() + weight.scale.bytes() + weight.bias.bytes(); }

size_t Bytes(const ExpertWeights& experts) {
  size_t bytes = experts.table.bytes();
  for (const Weight& expert : experts.experts) bytes += Bytes(expert);
  return bytes;
}

size_t Bytes(const MoeWeights& moe) {
  size_t bytes = Bytes(moe.router) + Bytes(moe.gate_up) + Bytes(moe.down);
  if (moe.shared.has_value()) bytes += Bytes(moe.shared->gate) + Bytes(moe.shared->gate_up) + Bytes(moe.shared->down);
  return bytes;
}

size_t Bytes(const LayerWeights& layer) {
  size_t bytes = layer.input_norm.bytes() + layer.q_norm.bytes() + layer.k_norm.bytes() + layer.post_norm.bytes();
  for (const Weight* linear : {&layer.qkv, &layer.output, &layer.gate_up, &layer.down}) bytes += Bytes(*linear);
  return bytes + (layer.moe.has_value() ? Bytes(*layer.moe) : 0);
}

}  // namespace

int64_t StoredBytes(const ModelWeights& weights) {
  size_t bytes = weights.final_norm.bytes();
  for (const auto* table : {&weights.embedding, &weights.head}) bytes += table->has_value() ? Bytes(**table) : 0;
  for (const LayerWeights& layer : weights.layers) bytes += Bytes(layer);
  return static_cast<int64_t>(bytes);
}

}  // namespace weft
