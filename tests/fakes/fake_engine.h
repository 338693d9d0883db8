// An Engine without a model, for tests of everything to its left.
//
// The token it draws is a hash of all tokens before it and of (seed, sequence, position), so the right output of a
// request is known whatever the schedule: ExpectedTokens(). Its cache remembers, for each place, which token of which
// prefix was written there; every step checks that the places a row reads hold just that row's prefix, so a block that
// is stale, stolen or never written ends the test.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "kernels/check.h"

namespace weft {

class FakeEngine final : public Engine {
 public:
  explicit FakeEngine(const EngineLimits& limits, int max_in_flight = 2)
      : limits_(limits),
        max_in_flight_(max_in_flight),
        places_(static_cast<size_t>(limits.num_blocks) * static_cast<size_t>(limits.block_size)),
        slots_(static_cast<size_t>(limits.max_num_seqs)) {}

  const EngineLimits& limits() const override { return limits_; }
  bool HasRoom() const override { return static_cast<int>(in_flight_.size()) < max_in_flight_; }
  bool HasInFlight() const override { return !in_flight_.empty(); }

  void Submit(const Batch& batch) override {
    CHECK(batch.num_rows() > 0 && batch.num_rows() <= limits_.max_num_seqs, "rows within limits");
    CHECK(batch.num_tokens() <= limits_.max_num_batched_tokens, "tokens within limits");
    CHECK(static_cast<int>(batch.sampling.size()) <= limits_.max_num_logits(), "logits within limits");
    in_flight_.push_back(batch);
  }

  absl::StatusOr<StepResult> Collect() override {
    const Batch batch = std::move(in_flight_.front());
    in_flight_.pop_front();
    if (!death_.ok() && num_steps_left_-- <= 0) return death_;
    for (const SlotStart& start : batch.slot_starts) {
      if (deadly_seed_ == start.sampling.seed) return death_ = absl::UnavailableError("killed by a request");
    }
    return Execute(batch);
  }

  // From now on the logits at this position of any sequence hold a NaN.
  void SpoilPosition(int64_t position) { spoilt_position_ = position; }

  // From now on every Collect fails.
  void Die(absl::Status status) { DieAfter(0, std::move(status)); }
  // ... after so many that don't.
  void DieAfter(int num_steps, absl::Status status) {
    num_steps_left_ = num_steps;
    death_ = std::move(status);
  }
  // A sequence with this seed kills it.
  void DieOfSeed(uint64_t seed) { deadly_seed_ = seed; }

  // What a request with this prompt draws, stop criteria aside.
  static std::vector<int32_t> ExpectedTokens(const std::vector<int32_t>& prompt, const SamplingParams& sampling,
                                             int32_t vocab_size, int count) {
    uint64_t digest = 0;
    for (const int32_t token : prompt) digest = Extend(digest, token);
    std::vector<int32_t> tokens;
    for (int i = 0; i < count; ++i) {
      tokens.push_back(Draw(digest, sampling, static_cast<int64_t>(prompt.size()) + i, vocab_size));
      digest = Extend(digest, tokens.back());
    }
    return tokens;
  }

 private:
  struct Place {
    int32_t token = -1;
    int64_t position = -1;
    uint64_t digest = 0;  // of the prefix that ends here
  };
  struct Slot {
    SamplingParams sampling;
    int32_t last_sampled = -1;
    std::vector<int32_t> blocks;  // its block table
  };

  static uint64_t Mix(uint64_t x) {  // the finaliser of SplitMix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  static uint64_t Extend(uint64_t digest, int32_t token) {
    return Mix(digest * 31 + static_cast<uint64_t>(token) + 0x9e3779b97f4a7c15u);
  }
  static int32_t Draw(uint64_t digest, const SamplingParams& sampling, int64_t position, int32_t vocab_size) {
    const uint64_t draw = Mix(digest ^ Mix(sampling.seed + sampling.sequence) ^ static_cast<uint64_t>(position));
    return static_cast<int32_t>(draw % static_cast<uint64_t>(vocab_size));
  }

  StepResult Execute(const Batch& batch) {
    for (const SlotStart& start : batch.slot_starts) slots_[static_cast<size_t>(start.slot)] = {start.sampling, -1, {}};
    for (const BlockUpdate& update : batch.block_updates) {
      std::vector<int32_t>& blocks = slots_[static_cast<size_t>(update.slot)].blocks;
      CHECK(static_cast<size_t>(update.index) == blocks.size(), "a block table grows at its end");
      CHECK(update.block >= 0 && update.block < limits_.num_blocks, "a block of the pool");
      blocks.push_back(update.block);
    }
    std::vector<uint64_t> digests;
    for (int row = 0; row < batch.num_rows(); ++row) digests.push_back(RunRow(batch, static_cast<size_t>(row)));
    StepResult result{.step = batch.step};
    for (const SamplingRow& sampling : batch.sampling) {
      const size_t row = static_cast<size_t>(sampling.row);
      if (sampling.known.has_value()) {
        result.tokens.push_back(Score(batch, sampling));
        continue;
      }
      Slot& slot = slots_[static_cast<size_t>(batch.slots[row])];
      slot.last_sampled = Draw(digests[row], slot.sampling, sampling.position, limits_.vocab_size);
      result.tokens.push_back(
          {.token = slot.last_sampled, .logprob = -1.0f, .finite = sampling.position != spoilt_position_});
    }
    return result;
  }

  // A prompt's score here is the position, so that tests see whether each came once and in order.
  SampledToken Score(const Batch& batch, const SamplingRow& sampling) const {
    const size_t row = static_cast<size_t>(sampling.row);
    const auto begin = static_cast<size_t>(batch.row_begin[row]);
    const auto end = static_cast<size_t>(batch.row_begin[row + 1]);
    CHECK(sampling.position > batch.positions[begin] && sampling.position <= batch.positions[end - 1] + 1,
          "the token before the one that is scored is in the row");
    return {.token = *sampling.known,
            .logprob = static_cast<float>(-sampling.position),
            .in_prompt = true,
            .finite = sampling.position != spoilt_position_};
  }

  Place& PlaceOf(const Batch& batch, size_t row, int64_t position) {
    const std::vector<int32_t>& blocks = slots_[static_cast<size_t>(batch.slots[row])].blocks;
    const auto block = static_cast<size_t>(position / limits_.block_size);
    CHECK(block < blocks.size(), "the block table covers the row's tokens");
    return places_[static_cast<size_t>(blocks[block]) * static_cast<size_t>(limits_.block_size) +
                   static_cast<size_t>(position % limits_.block_size)];
  }

  // The digest of the row's prefix after its last token.
  uint64_t RunRow(const Batch& batch, size_t row) {
    const auto begin = static_cast<size_t>(batch.row_begin[row]);
    const auto end = static_cast<size_t>(batch.row_begin[row + 1]);
    uint64_t digest = 0;
    for (int64_t position = 0; position < batch.positions[begin]; ++position) {
      const Place& place = PlaceOf(batch, row, position);
      digest = Extend(digest, place.token);
      CHECK(place.position == position && place.digest == digest, "a row reads its own prefix");
    }
    for (size_t t = begin; t < end; ++t) {
      const int32_t last = slots_[static_cast<size_t>(batch.slots[row])].last_sampled;
      const int32_t token = batch.token_ids[t] == kLastSampled ? last : batch.token_ids[t];
      CHECK(token >= 0 && token < limits_.vocab_size, "a token of the vocabulary");
      digest = Extend(digest, token);
      PlaceOf(batch, row, batch.positions[t]) = {token, batch.positions[t], digest};
    }
    return digest;
  }

  const EngineLimits limits_;
  const int max_in_flight_;
  std::deque<Batch> in_flight_;
  std::vector<Place> places_;
  std::vector<Slot> slots_;
  absl::Status death_;
  int num_steps_left_ = 0;  // before it dies
  std::optional<uint64_t> deadly_seed_;
  int64_t spoilt_position_ = -1;
};

}  // namespace weft
