// A batch's arrays in device memory.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/batch.h"
#include "engine/engine.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace weft {

// Allocated once, for the largest step; filled by each step's Load. Owned by a Worker. Keeps the block tables of all
// slots between steps.
class StepInput {
 public:
  static absl::StatusOr<StepInput> Allocate(const EngineLimits& limits, Backend& backend);

  // Copies the batch's arrays. Requires every token id to be a token.
  void Load(const Batch& batch, Backend& backend);

  const int32_t* token_ids() const { return token_ids_.As<int32_t>(); }  // [num_tokens]
  const int32_t* sampled_tokens() const {
    return sampled_tokens_.As<int32_t>();
  }  // [num_samples] each comes before a token to be drawn or scored
  const RowMap& rows() const { return rows_; }
  int num_tokens() const { return rows_.num_tokens; }
  int num_samples() const { return num_samples_; }

 private:
  StepInput() = default;

  Buffer token_ids_, positions_, row_begin_, block_begin_, sampled_tokens_;
  Buffer block_tables_;  // [max_num_seqs, blocks_a_slot_]
  int64_t blocks_a_slot_ = 0;
  RowMap rows_;
  int num_samples_ = 0;
};

}  // namespace weft
