#include "engine/step_input.h"

#include <vector>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

void CopyInts(const std::vector<int32_t>& values, const Buffer& buffer, Backend& backend) {
  const size_t bytes = values.size() * sizeof(int32_t);
  CHECK(bytes <= buffer.bytes(), "a step is within the engine's limits");
  backend.CopyFromHost(buffer.data(), values.data(), bytes);
}

}  // namespace

absl::StatusOr<StepInput> StepInput::Allocate(const EngineLimits& limits, Backend& backend) {
  const auto allocate = [&backend](int64_t count) {
    return backend.Allocate(static_cast<size_t>(count) * sizeof(int32_t));
  };
  StepInput input;
  input.blocks_a_slot_ = (limits.max_model_len + limits.block_size - 1) / limits.block_size;
  ASSIGN_OR_RETURN(input.token_ids_, allocate(limits.max_num_batched_tokens));
  ASSIGN_OR_RETURN(input.positions_, allocate(limits.max_num_batched_tokens));
  ASSIGN_OR_RETURN(input.row_begin_, allocate(limits.max_num_seqs + 1));
  ASSIGN_OR_RETURN(input.block_begin_, allocate(limits.max_num_seqs));
  ASSIGN_OR_RETURN(input.block_tables_, allocate(limits.max_num_seqs * input.blocks_a_slot_));
  ASSIGN_OR_RETURN(input.sampled_tokens_, allocate(limits.max_num_logits()));
  return input;
}

void StepInput::Load(const Batch& batch, Backend& backend) {
  std::vector<int32_t> sampled_tokens;
  for (const SamplingRow& sampling : batch.sampling) {
    const int32_t begin = batch.row_begin[static_cast<size_t>(sampling.row)];
    const int64_t offset = sampling.position - 1 - batch.positions[static_cast<size_t>(begin)];
    sampled_tokens.push_back(begin + static_cast<int32_t>(offset));
  }
  std::vector<int32_t> block_begin;
  for (const int32_t slot : batch.slots) block_begin.push_back(slot * static_cast<int32_t>(blocks_a_slot_));
  for (const BlockUpdate& update : batch.block_updates) {
    CHECK(update.index < blocks_a_slot_, "a sequence is within the engine's limits");
    int32_t* const place = block_tables_.As<int32_t>() + update.slot * blocks_a_slot_ + update.index;
    backend.CopyFromHost(place, &update.block, sizeof update.block);
  }
  CopyInts(batch.token_ids, token_ids_, backend);
  CopyInts(batch.positions, positions_, backend);
  CopyInts(batch.row_begin, row_begin_, backend);
  CopyInts(block_begin, block_begin_, backend);
  CopyInts(sampled_tokens, sampled_tokens_, backend);
  rows_ = {positions_.As<int32_t>(),    row_begin_.As<int32_t>(), block_begin_.As<int32_t>(),
           block_tables_.As<int32_t>(), batch.num_rows(),         batch.num_tokens()};
  num_samples_ = static_cast<int>(sampled_tokens.size());
}

}  // namespace weft
