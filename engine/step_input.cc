#include "engine/step_input.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace weft {

absl::StatusOr<StepInput> StepInput::Allocate(const EngineLimits& limits, Backend& backend) {
  StepInput input;
  input.blocks_a_slot_ = (limits.max_model_len + limits.block_size - 1) / limits.block_size;
  input.no_slot_ = limits.max_num_seqs;
  const int64_t num_places = (limits.max_num_seqs + 1) * input.blocks_a_slot_;
  int64_t size = 0;
  const auto reserve = [&size](int64_t count) { return Section{std::exchange(size, size + count), count}; };
  input.token_ids_ = reserve(limits.max_num_batched_tokens);
  input.sources_ = reserve(limits.max_num_batched_tokens);
  input.positions_ = reserve(limits.max_num_batched_tokens);
  input.row_begin_ = reserve(limits.max_num_seqs + 1);
  input.block_begin_ = reserve(limits.max_num_seqs);
  input.sampled_tokens_ = reserve(limits.max_num_logits());
  input.table_changes_ = reserve(2 * num_places);
  const size_t bytes = static_cast<size_t>(size) * sizeof(int32_t);
  ASSIGN_OR_RETURN(input.device_, backend.Allocate(bytes));
  ASSIGN_OR_RETURN(input.last_drawn_, backend.Allocate(static_cast<size_t>(limits.max_num_seqs) * sizeof(int32_t)));
  for (Buffer& host : input.host_) {
    ASSIGN_OR_RETURN(host, backend.AllocateHost(bytes));
  }
  const std::vector<int32_t> tables(static_cast<size_t>(num_places), limits.num_blocks);
  ASSIGN_OR_RETURN(input.block_tables_, backend.Allocate(tables.size() * sizeof(int32_t)));
  backend.CopyFromHost(input.block_tables_.data(), tables.data(), tables.size() * sizeof(int32_t));
  return input;
}

void StepInput::Fill(const Section& section, absl::Span<const int32_t> values, int32_t* host) const {
  CHECK(static_cast<int64_t>(values.size()) <= section.count, "a step is within the engine's limits");
  std::copy(values.begin(), values.end(), host + section.begin);
}

void StepInput::Load(const Batch& batch, int num_fillers, Backend& backend) {
  std::vector<int32_t> token_ids = batch.token_ids, positions = batch.positions, row_begin = batch.row_begin;
  std::vector<int32_t> sources(token_ids.size(), -1);  // slots whose last token it is
  std::vector<int32_t> sampled_tokens, block_begin, table_changes;
  for (size_t row = 0; row < batch.slots.size(); ++row) {
    for (auto t = static_cast<size_t>(row_begin[row]); t < static_cast<size_t>(row_begin[row + 1]); ++t) {
      if (token_ids[t] == kLastSampled) sources[t] = batch.slots[row];
    }
  }
  for (const SamplingRow& sampling : batch.sampling) {
    const int32_t begin = batch.row_begin[static_cast<size_t>(sampling.row)];
    const int64_t offset = sampling.position - 1 - batch.positions[static_cast<size_t>(begin)];
    sampled_tokens.push_back(begin + static_cast<int32_t>(offset));
  }
  for (const int32_t slot : batch.slots) block_begin.push_back(slot * static_cast<int32_t>(blocks_a_slot_));
  for (const BlockUpdate& update : batch.block_updates) {
    CHECK(update.index < blocks_a_slot_, "a sequence is within the engine's limits");
    table_changes.push_back(update.slot * static_cast<int32_t>(blocks_a_slot_) + update.index);
    table_changes.push_back(update.block);
  }
  for (int i = 0; i < num_fillers; ++i) {
    sampled_tokens.push_back(static_cast<int32_t>(token_ids.size()));
    token_ids.push_back(0);
    sources.push_back(-1);
    positions.push_back(0);
    row_begin.push_back(static_cast<int32_t>(token_ids.size()));
    block_begin.push_back(no_slot_ * static_cast<int32_t>(blocks_a_slot_));
  }
  turn_ = (turn_ + 1) % host_.size();
  int32_t* const host = host_[turn_].As<int32_t>();
  Fill(token_ids_, token_ids, host);
  Fill(sources_, sources, host);
  Fill(positions_, positions, host);
  Fill(row_begin_, row_begin, host);
  Fill(block_begin_, block_begin, host);
  Fill(sampled_tokens_, sampled_tokens, host);
  Fill(table_changes_, table_changes, host);
  const size_t used = static_cast<size_t>(table_changes_.begin) + table_changes.size();
  backend.CopyFromHost(device_.data(), host, used * sizeof(int32_t));
  const auto num_changes = static_cast<int>(batch.block_updates.size());
  backend.ScatterPairs(At(table_changes_), num_changes, block_tables_.As<int32_t>());

  backend.TakeInts(last_drawn(), At(sources_), static_cast<int>(token_ids.size()), At(token_ids_));

  rows_ = {At(positions_),
           At(row_begin_),
           At(block_begin_),
           block_tables_.As<int32_t>(),
           static_cast<int>(block_begin.size()),
           static_cast<int>(token_ids.size())};
  num_samples_ = static_cast<int>(sampled_tokens.size());
  can_replay_ = false;
}

}  // namespace weft
