#include "tests/simulator/sim_engine.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace weft {

SimEngine::SimEngine(const EngineLimits& limits, int max_in_flight, Host host)
    : limits_(limits),
      max_in_flight_(max_in_flight),
      host_(std::move(host)),
      device_(limits,
              {.scope = [this](const SamplingParams& sampling) { return host_.request(sampling).scope_tag; },
               .is_spoilt = [this](const SamplingParams& sampling,
                                   int64_t position) { return host_.request(sampling).nan_position == position; }}),
      slots_(static_cast<size_t>(limits.max_num_seqs)),
      spoilt_at_(static_cast<size_t>(limits.num_blocks)) {}

void SimEngine::Submit(const Batch& batch) {
  CHECK(HasRoom(), "a step is submitted where there is room");
  CheckLimits(batch);
  TakeSlots(batch);
  TakeBlocks(batch);
  CheckWrites(batch);
  Step step{.batch = batch};
  for (const int32_t slot : batch.slots) step.rows.push_back(slots_[static_cast<size_t>(slot)].request);
  const Host::Fate fate = host_.decide(batch, step.rows);
  step.took_us = fate.took_us;
  step.fault = fate.fault;
  step.done_us = busy_until_us_ = std::max(busy_until_us_, host_.now_us()) + fate.took_us;
  in_flight_.push_back(std::move(step));
}

void SimEngine::CheckLimits(const Batch& batch) const {
  CHECK(batch.num_rows() > 0 && batch.num_rows() <= limits_.max_num_seqs, "rows within limits");
  CHECK(batch.num_tokens() <= limits_.max_num_batched_tokens, "tokens within limits");
  const auto num_scores = std::count_if(batch.sampling.begin(), batch.sampling.end(),
                                        [](const SamplingRow& sampling) { return sampling.known.has_value(); });
  CHECK(num_scores <= limits_.max_num_scores, "scores within limits");
  CHECK(static_cast<int>(batch.sampling.size()) - num_scores <= batch.num_rows(), "a row draws one token");
  for (size_t row = 0; row < batch.slots.size(); ++row) {
    CHECK(batch.row_begin[row] < batch.row_begin[row + 1], "a row has tokens");
    CHECK(std::count(batch.slots.begin(), batch.slots.end(), batch.slots[row]) == 1, "a slot has one row");
    CHECK(batch.positions[static_cast<size_t>(batch.row_begin[row + 1]) - 1] < limits_.max_model_len,
          "positions of the model");
  }
}

void SimEngine::TakeSlots(const Batch& batch) {
  for (const SlotStart& start : batch.slot_starts) {
    CHECK(start.slot >= 0 && start.slot < limits_.max_num_seqs, "a slot of the engine");
    for (const Step& step : in_flight_) {
      CHECK(std::find(step.batch.slots.begin(), step.batch.slots.end(), start.slot) == step.batch.slots.end(),
            "a slot that a step in flight uses isn't taken anew");
    }
    SimRequest& request = host_.request(start.sampling);
    CHECK(start.num_prompt_tokens == request.num_prompt(), "the slot knows where the prompt ends");
    const size_t num_known = start.sampling.HasPenalties() ? request.prompt.size() + request.num_tokens : 0;
    CHECK(start.tokens.size() == num_known, "penalties know the tokens so far");
    slots_[static_cast<size_t>(start.slot)] = {&request, {}};
  }
}

void SimEngine::TakeBlocks(const Batch& batch) {
  for (const BlockUpdate& update : batch.block_updates) {
    CHECK(update.block >= 0 && update.block < limits_.num_blocks, "a block of the pool");
    Slot& slot = slots_[static_cast<size_t>(update.slot)];
    CHECK(static_cast<size_t>(update.index) == slot.blocks.size(), "a block table grows at its end");
    slot.blocks.push_back(update.block);
    const auto row =
        static_cast<size_t>(std::find(batch.slots.begin(), batch.slots.end(), update.slot) - batch.slots.begin());
    CHECK(row < batch.slots.size(), "a slot's blocks change when it has a row");
    const int first = batch.positions[static_cast<size_t>(batch.row_begin[row])];
    const bool taken_up = update.index * limits_.block_size < first;
    const uint64_t spoilt_at = spoilt_at_[static_cast<size_t>(update.block)];
    CHECK(!taken_up || spoilt_at == 0 || slot.request->pulled_at < spoilt_at,
          "nobody takes up a block after a NaN came of it");
  }
}

int SimEngine::LastBlock(const Batch& batch, size_t row) const {
  return batch.positions[static_cast<size_t>(batch.row_begin[row + 1]) - 1] / limits_.block_size;
}

// A block that a row writes is used by no other row, in this step or in one in flight.
void SimEngine::CheckWrites(const Batch& batch) const {
  std::vector<int32_t> writer(static_cast<size_t>(limits_.num_blocks), -1);  // a slot
  for (size_t row = 0; row < batch.slots.size(); ++row) {
    const Slot& slot = slots_[static_cast<size_t>(batch.slots[row])];
    const int first = batch.positions[static_cast<size_t>(batch.row_begin[row])] / limits_.block_size;
    CHECK(LastBlock(batch, row) < static_cast<int>(slot.blocks.size()), "the block table covers the row's tokens");
    for (int i = first; i <= LastBlock(batch, row); ++i) {
      int32_t& of_block = writer[static_cast<size_t>(slot.blocks[static_cast<size_t>(i)])];
      CHECK(of_block == -1, "a block has one writer");
      of_block = batch.slots[row];
    }
  }
  const auto check = [&](const Batch& other) {
    for (size_t row = 0; row < other.slots.size(); ++row) {
      const Slot& slot = slots_[static_cast<size_t>(other.slots[row])];
      for (int i = 0; i <= LastBlock(other, row); ++i) {
        const int32_t by = writer[static_cast<size_t>(slot.blocks[static_cast<size_t>(i)])];
        CHECK(by == -1 || by == other.slots[row], "nobody writes a block that another sequence in flight uses");
      }
    }
  };
  check(batch);
  for (const Step& step : in_flight_) check(step.batch);
}

absl::StatusOr<StepResult> SimEngine::Collect() {
  CHECK(HasInFlight(), "there is a step to wait for");
  if (!death_.ok()) return death_;
  Step& oldest = in_flight_.front();
  const StepFault fault = std::exchange(oldest.fault, StepFault::kNone);
  switch (fault) {
    case StepFault::kDiesAfter:
    case StepFault::kDiesDuring:  // as seen from here, they are one: the device's memory is gone
      Execute(oldest);
      [[fallthrough]];
    case StepFault::kDiesBefore:
      // Some die of their batch, others are killed.
      return death_ = oldest.batch.step % 3 == 0 ? absl::UnavailableError("killed") : absl::InternalError("it died");
    case StepFault::kComesTwice:
      if (last_.step < oldest.batch.step && !last_.tokens.empty()) return last_;
      break;
    default:
      break;
  }
  const Step step = std::move(in_flight_.front());
  in_flight_.pop_front();
  StepResult result = Execute(step);
  if (fault == StepFault::kMiscounted) {
    result.tokens.resize(result.tokens.size() + (result.tokens.empty() || step.batch.step % 2 == 0 ? 1 : -1));
  } else if (fault == StepFault::kReordered) {
    ++result.step;
  }
  return last_ = result;
}

StepResult SimEngine::Execute(const Step& step) {
  StepResult result = device_.Execute(step.batch);
  result.compute_time = absl::Microseconds(step.took_us);
  const Batch& batch = step.batch;
  for (size_t t = 0, row = 0; t < batch.positions.size(); ++t) {
    if (static_cast<int>(t) == batch.row_begin[row + 1]) ++row;
    if (batch.positions[t] % limits_.block_size != 0) continue;
    const std::vector<int32_t>& blocks = device_.BlocksOf(batch.slots[row]);
    spoilt_at_[static_cast<size_t>(blocks[static_cast<size_t>(batch.positions[t] / limits_.block_size)])] = 0;
  }
  for (size_t i = 0; i < batch.sampling.size(); ++i) {
    if (result.tokens[i].finite) continue;
    for (const int32_t block : device_.BlocksOf(batch.slots[static_cast<size_t>(batch.sampling[i].row)])) {
      spoilt_at_[static_cast<size_t>(block)] = host_.moment();
    }
  }
  return result;
}

std::vector<SimRequest*> SimEngine::InSteps() const {
  std::vector<SimRequest*> all;
  for (const Step& step : in_flight_) {
    for (SimRequest* request : step.rows) {
      if (std::find(all.begin(), all.end(), request) == all.end()) all.push_back(request);
    }
  }
  return all;
}

}  // namespace weft
