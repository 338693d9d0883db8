#include "engine/pipeline_parallel.h"

#include <algorithm>
#include <cstddef>

namespace weft {

std::vector<int32_t> PipelineStage::DrawnSlots(const Batch& batch) {
  std::vector<int32_t> slots;
  for (const SamplingRow& sampling : batch.sampling) {
    if (!sampling.known.has_value()) slots.push_back(batch.slots[static_cast<size_t>(sampling.row)]);
  }
  return slots;
}

void PipelineStage::PassOn(absl::Span<const SampledToken> tokens) {
  std::vector<int32_t> drawn;
  for (const SampledToken& token : tokens) {
    if (!token.in_prompt) drawn.push_back(token.token);
  }
  if (drawn.empty()) return;
  stages_->Send(DenseTensor(drawn.data(), DType::kI8, 1, static_cast<int64_t>(drawn.size() * sizeof(int32_t))), 0);
}

void PipelineStage::ResolveTokens(Batch& batch) {
  for (size_t row = 0; row < batch.slots.size(); ++row) {
    const int32_t slot = batch.slots[row];
    for (int32_t t = batch.row_begin[row]; t < batch.row_begin[row + 1]; ++t) {
      int32_t& token = batch.token_ids[static_cast<size_t>(t)];
      if (token != kLastSampled) continue;
      while (IsDue(slot)) ReceiveOldest();
      token = last_drawn_[static_cast<size_t>(slot)];
    }
  }
  // Of a step that is so long ago the tokens are here: the engine has no more in flight.
  const auto most_in_flight = static_cast<size_t>(2 * plan_.num_stages);
  while (due_slots_.size() >= most_in_flight) ReceiveOldest();
  std::vector<int32_t> drawn = DrawnSlots(batch);
  if (!drawn.empty()) due_slots_.push_back(std::move(drawn));
}

bool PipelineStage::IsDue(int32_t slot) const {
  return std::any_of(due_slots_.begin(), due_slots_.end(), [slot](const std::vector<int32_t>& slots) {
    return std::find(slots.begin(), slots.end(), slot) != slots.end();
  });
}

void PipelineStage::ReceiveOldest() {
  const std::vector<int32_t>& slots = due_slots_.front();
  std::vector<int32_t> drawn(slots.size());
  const auto bytes = static_cast<int64_t>(drawn.size() * sizeof(int32_t));
  stages_->Recv(DenseTensor(drawn.data(), DType::kI8, 1, bytes), plan_.num_stages - 1);
  for (size_t i = 0; i < drawn.size(); ++i) last_drawn_[static_cast<size_t>(slots[i])] = drawn[i];
  due_slots_.pop_front();
}

}  // namespace weft
