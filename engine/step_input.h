// A batch's arrays in device memory.
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/batch.h"
#include "engine/engine.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace weft {

// Allocated once, for the largest step; filled by each step's Load, with one copy. Owned by a Worker. Keeps the block
// tables of all slots between steps.
class StepInput {
 public:
  static absl::StatusOr<StepInput> Allocate(const EngineLimits& limits, Backend& backend);

  // Copies the batch's arrays; each kLastSampled becomes what last_drawn() holds for its slot, on the device. Requires
  // that the copy of the Load before last is done.
  void Load(const Batch& batch, Backend& backend) { Load(batch, 0, backend); }
  // A batch whose rows have one token each, which is drawn for, filled up to `num_tokens` with rows of no sequence. All
  // of one size are alike but for what is in device memory.
  void LoadForReplay(const Batch& batch, int num_tokens, Backend& backend) {
    Load(batch, num_tokens - batch.num_tokens(), backend);
    can_replay_ = true;
  }

  const int32_t* token_ids() const { return At(token_ids_); }  // [num_tokens]
  // [num_samples] each comes before a token to be drawn or scored
  const int32_t* sampled_tokens() const { return At(sampled_tokens_); }
  const RowMap& rows() const { return rows_; }
  int32_t* last_drawn() const { return last_drawn_.As<int32_t>(); }  // [max_num_seqs] by slot; for who draws to write
  int num_tokens() const { return rows_.num_tokens; }
  int num_samples() const { return num_samples_; }
  bool can_replay() const { return can_replay_; }

 private:
  // Part of an array of ints.
  struct Section {
    int64_t begin = 0;
    int64_t count = 0;
  };

  StepInput() = default;
  void Load(const Batch& batch, int num_fillers, Backend& backend);
  int32_t* At(const Section& section) const { return device_.As<int32_t>() + section.begin; }
  void Fill(const Section& section, absl::Span<const int32_t> values, int32_t* host) const;

  Section token_ids_, sources_, positions_, row_begin_, block_begin_, sampled_tokens_;
  Section table_changes_;  // pairs of place and block; last, as most steps have few
  Buffer device_;
  Buffer last_drawn_;
  std::array<Buffer, 2> host_;  // in turn: one step's copy may be under way while the next is filled in
  size_t turn_ = 0;
  Buffer block_tables_;  // [max_num_seqs + 1, blocks_a_slot_]: the last is of no sequence, in a block that none has
  int64_t blocks_a_slot_ = 0;
  RowMap rows_;
  int num_samples_ = 0;
  bool can_replay_ = false;
  int32_t no_slot_ = 0;
};

}  // namespace weft
