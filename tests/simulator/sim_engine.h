// An Engine in virtual time, that knows the rules of the contract and how engines fail.
//
// What it checks beyond its ShadowDevice: limits; that no block which a step in flight uses is written by anybody else,
// and no slot taken anew; and that nobody takes up a block after a NaN made it suspicious.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "engine/engine.h"
#include "tests/fakes/shadow_device.h"
#include "tests/simulator/sim_request.h"

namespace weft {

enum class StepFault { kNone, kDiesBefore, kDiesDuring, kDiesAfter, kComesTwice, kMiscounted, kReordered };

class SimEngine final : public Engine {
 public:
  // The world around it; all are called at once.
  struct Host {
    std::function<SimRequest&(const SamplingParams&)> request;
    // Looks at a step before it is taken; says how it goes.
    struct Fate {
      int64_t took_us = 0;
      StepFault fault = StepFault::kNone;
    };
    std::function<Fate(const Batch&, const std::vector<SimRequest*>& rows)> decide;
    std::function<int64_t()> now_us;
    std::function<uint64_t()> moment;  // grows with every part of every event
  };

  SimEngine(const EngineLimits& limits, int max_in_flight, Host host);

  const EngineLimits& limits() const override { return limits_; }
  bool HasRoom() const override { return static_cast<int>(in_flight_.size()) < max_in_flight_; }
  bool HasInFlight() const override { return !in_flight_.empty(); }
  void Submit(const Batch& batch) override;
  absl::StatusOr<StepResult> Collect() override;
  absl::Status status() const override { return death_; }
  EngineStats stats() const override { return {}; }

  int64_t done_us() const { return in_flight_.front().done_us; }  // of the oldest step; requires HasInFlight
  std::vector<SimRequest*> InSteps() const;                       // each once; in no order

 private:
  struct Step {
    Batch batch;
    std::vector<SimRequest*> rows;
    int64_t took_us = 0;
    int64_t done_us = 0;
    StepFault fault = StepFault::kNone;
  };
  // As the host has sent it; the device may be two steps behind.
  struct Slot {
    SimRequest* request = nullptr;
    std::vector<int32_t> blocks;
  };

  void CheckLimits(const Batch& batch) const;
  void TakeSlots(const Batch& batch);
  void TakeBlocks(const Batch& batch);
  void CheckWrites(const Batch& batch) const;
  int LastBlock(const Batch& batch, size_t row) const;
  StepResult Execute(const Step& step);

  const EngineLimits limits_;
  const int max_in_flight_;
  const Host host_;
  ShadowDevice device_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> spoilt_at_;  // the moment that made a block's content suspicious; 0: it isn't
  std::deque<Step> in_flight_;
  StepResult last_;  // the result that was given last
  int64_t busy_until_us_ = 0;
  absl::Status death_;
};

}  // namespace weft
