// An Engine without a model, for tests of everything to its left: answers at once, with the tokens of a ShadowDevice.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "kernels/check.h"
#include "tests/fakes/shadow_device.h"

namespace weft {

class FakeEngine final : public Engine {
 public:
  explicit FakeEngine(const EngineLimits& limits, int max_in_flight = 2)
      : limits_(limits),
        max_in_flight_(max_in_flight),
        device_(limits, {.scope = nullptr, .is_spoilt = [this](const SamplingParams&, int64_t position) {
                           return position == spoilt_position_;
                         }}) {}

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
      if (deadly_seed_ == start.sampling.seed) return death_ = death_of_seed_;
    }
    return device_.Execute(batch);
  }
  EngineStats stats() const override { return {}; }

  absl::Status status() const override { return absl::OkStatus(); }  // it dies in steps alone

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
  void DieOfSeed(uint64_t seed, absl::Status status = absl::InternalError("killed by a request")) {
    deadly_seed_ = seed;
    death_of_seed_ = std::move(status);
  }

  // What a request with this prompt draws, stop criteria aside.
  static std::vector<int32_t> ExpectedTokens(const std::vector<int32_t>& prompt, const SamplingParams& sampling,
                                             int32_t vocab_size, int count) {
    return ShadowDevice::ExpectedTokens(prompt, sampling, vocab_size, count);
  }

 private:
  const EngineLimits limits_;
  const int max_in_flight_;
  std::deque<Batch> in_flight_;
  ShadowDevice device_;
  absl::Status death_;
  int num_steps_left_ = 0;  // before it dies
  std::optional<uint64_t> deadly_seed_;
  absl::Status death_of_seed_;
  int64_t spoilt_position_ = -1;
};

}  // namespace weft
