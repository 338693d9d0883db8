// What a device does with batches, without a model.
//
// The token it draws is a hash of all tokens before it and of (seed, sequence, position), so the right output of a
// request is known whatever the schedule: ExpectedTokens(). Its cache remembers, for each place, which token of which
// prefix was written there, and for whom; every step checks that the places a row reads hold just that row's prefix, so
// a block that is stale, stolen or never written ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "engine/batch.h"
#include "engine/engine.h"
#include "kernels/check.h"

namespace weft {

class ShadowDevice {
 public:
  struct Rules {
    // Sequences read each other's blocks only within one scope; null: all are one.
    std::function<uint64_t(const SamplingParams&)> scope;
    // The logits for this position of this sequence hold a NaN; null: none do.
    std::function<bool(const SamplingParams&, int64_t position)> is_spoilt;
  };

  ShadowDevice(const EngineLimits& limits, Rules rules)
      : limits_(limits),
        rules_(std::move(rules)),
        places_(static_cast<size_t>(limits.num_blocks) * static_cast<size_t>(limits.block_size)),
        slots_(static_cast<size_t>(limits.max_num_seqs)) {}

  StepResult Execute(const Batch& batch) {
    for (const SlotStart& start : batch.slot_starts) StartSlot(start);
    for (const BlockUpdate& update : batch.block_updates) {
      std::vector<int32_t>& blocks = SlotOf(update.slot).blocks;
      CHECK(static_cast<size_t>(update.index) == blocks.size(), "a block table grows at its end");
      CHECK(update.block >= 0 && update.block < limits_.num_blocks, "a block of the pool");
      blocks.push_back(update.block);
    }
    digests_.clear();
    for (int row = 0; row < batch.num_rows(); ++row) digests_.push_back(RunRow(batch, static_cast<size_t>(row)));
    StepResult result{.step = batch.step};
    result.tokens.reserve(batch.sampling.size());
    for (const SamplingRow& sampling : batch.sampling) result.tokens.push_back(Sample(batch, sampling));
    return result;
  }

  const std::vector<int32_t>& BlocksOf(int32_t slot) const { return slots_[static_cast<size_t>(slot)].blocks; }

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
    int32_t position = -1;
    uint64_t digest = 0;  // of the prefix that ends here
    uint64_t scope = 0;   // of the sequence that wrote it
  };
  struct Slot {
    SamplingParams sampling;
    uint64_t scope = 0;
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

  Slot& SlotOf(int32_t slot) { return slots_[static_cast<size_t>(slot)]; }

  void StartSlot(const SlotStart& start) {
    Slot& slot = SlotOf(start.slot);
    slot.sampling = start.sampling;
    slot.scope = rules_.scope ? rules_.scope(start.sampling) : 0;
    slot.last_sampled = -1;
    slot.blocks.clear();
  }

  SampledToken Sample(const Batch& batch, const SamplingRow& sampling) {
    const auto row = static_cast<size_t>(sampling.row);
    Slot& slot = SlotOf(batch.slots[row]);
    const bool finite = !rules_.is_spoilt || !rules_.is_spoilt(slot.sampling, sampling.position);
    if (sampling.known.has_value()) return Score(batch, sampling, finite);
    slot.last_sampled = Draw(digests_[row], slot.sampling, sampling.position, limits_.vocab_size);
    return {.token = slot.last_sampled, .logprob = -1.0f, .finite = finite};
  }

  // A prompt's score here is the position, so that tests see whether each came once and in order.
  static SampledToken Score(const Batch& batch, const SamplingRow& sampling, bool finite) {
    const auto row = static_cast<size_t>(sampling.row);
    const auto begin = static_cast<size_t>(batch.row_begin[row]);
    const auto end = static_cast<size_t>(batch.row_begin[row + 1]);
    CHECK(sampling.position > batch.positions[begin] && sampling.position <= batch.positions[end - 1] + 1,
          "the token before the one that is scored is in the row");
    return {.token = *sampling.known,
            .logprob = static_cast<float>(-sampling.position),
            .in_prompt = true,
            .finite = finite};
  }

  Place& PlaceOf(const Slot& slot, int32_t position) {
    const auto block = static_cast<size_t>(position / limits_.block_size);
    CHECK(block < slot.blocks.size(), "the block table covers the row's tokens");
    return places_[static_cast<size_t>(slot.blocks[block]) * static_cast<size_t>(limits_.block_size) +
                   static_cast<size_t>(position % limits_.block_size)];
  }

  // The digest of the row's prefix after its last token.
  uint64_t RunRow(const Batch& batch, size_t row) {
    const auto begin = static_cast<size_t>(batch.row_begin[row]);
    const auto end = static_cast<size_t>(batch.row_begin[row + 1]);
    const Slot& slot = SlotOf(batch.slots[row]);
    uint64_t digest = 0;
    for (int32_t position = 0; position < batch.positions[begin]; ++position) {
      const Place& place = PlaceOf(slot, position);
      digest = Extend(digest, place.token);
      CHECK(place.position == position && place.digest == digest, "a row reads its own prefix");
      CHECK(place.scope == slot.scope, "a row reads what was written in its own scope");
    }
    for (size_t t = begin; t < end; ++t) {
      const int32_t token = batch.token_ids[t] == kLastSampled ? slot.last_sampled : batch.token_ids[t];
      CHECK(token >= 0 && token < limits_.vocab_size, "a token of the vocabulary");
      CHECK(t == begin || batch.positions[t] == batch.positions[t - 1] + 1, "a row's positions follow each other");
      digest = Extend(digest, token);
      PlaceOf(slot, batch.positions[t]) = {token, batch.positions[t], digest, slot.scope};
    }
    return digest;
  }

  const EngineLimits limits_;
  const Rules rules_;
  std::vector<Place> places_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> digests_;  // of the step's rows
};

}  // namespace weft
