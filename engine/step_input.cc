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
  const int64_t blocks_a_row = (limits.max_model_len + limits.block_size - 1) / limits.block_size;
  StepInput input;
  ASSIGN_OR_RETURN(input.token_ids_, allocate(limits.max_num_batched_tokens));
  ASSIGN_OR_RETURN(input.positions_, allocate(limits.max_num_batched_tokens));
  ASSIGN_OR_RETURN(input.row_begin_, allocate(limits.max_num_seqs + 1));
  ASSIGN_OR_RETURN(input.block_begin_, allocate(limits.max_num_seqs + 1));
  ASSIGN_OR_RETURN(input.block_ids_, allocate(limits.max_num_seqs * blocks_a_row));
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
  CopyInts(batch.token_ids, token_ids_, backend);
  CopyInts(batch.positions, positions_, backend);
  CopyInts(batch.row_begin, row_begin_, backend);
  CopyInts(batch.block_begin, block_begin_, backend);
  CopyInts(batch.block_ids, block_ids_, backend);
  CopyInts(sampled_tokens, sampled_tokens_, backend);
  rows_ = {positions_.As<int32_t>(), row_begin_.As<int32_t>(), block_begin_.As<int32_t>(),
           block_ids_.As<int32_t>(), batch.num_rows(),         batch.num_tokens()};
  num_samples_ = static_cast<int>(sampled_tokens.size());
}

}  // namespace weft
