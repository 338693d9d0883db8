// One request as the simulator knows it: what is asked, the one right answer, and what has come of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "scheduler/prefix_key.h"
#include "scheduler/request.h"

namespace weft {

struct SimRequest {
  static constexpr int kOutside = -2;  // not pushed, or finished
  static constexpr int kWaiting = -1;  // in the queue

  // What is asked.
  int64_t id = -1;
  int tenant = 0;
  Priority priority = Priority::kNormal;
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  StopCriteria stop;
  absl::Duration patience = absl::InfiniteDuration();  // its deadline, from the push on
  std::optional<PrefixKey> scope;
  uint64_t scope_tag = 0;        // equal where prefixes may be shared
  int64_t nan_position = -1;     // the logits for this position aren't finite
  int32_t poison_position = -1;  // the replica that computes this position dies
  int64_t cancel_after_us = -1;
  bool stops_reading = false;

  // The right answer.
  std::vector<int32_t> golden;  // what it draws, if nothing ends it early
  FinishReason golden_reason = FinishReason::kLength;
  std::optional<int32_t> golden_stop;

  // What has come of it.
  absl::Time deadline = absl::InfiniteFuture();
  bool cancelled = false;
  bool aborted = false;  // the server ended its stream
  bool started = false;
  int64_t num_cached = 0;
  size_t num_tokens = 0;  // told
  int num_scores = 0;
  std::optional<FinishEvent> finish;
  const Request* raw = nullptr;  // while it is neither outside nor finished

  // Where it must be, as far as one can tell from outside.
  int where = kOutside;    // kOutside, kWaiting, or the replica that has it
  uint64_t pulled_at = 0;  // the moment

  bool charged = false;
  int num_overtakers = 0;     // at least so many
  bool was_promised = false;  // before the last pull: some replica makes room for it
  int num_deaths = 0;
  int num_kills = 0;  // since it had killed_at tokens
  size_t killed_at = 0;
  std::optional<size_t> suspect_until;  // it has more tokens than this
  int publishes_since_cancel = 0;

  bool IsSuspect() const { return suspect_until.has_value() && num_tokens <= *suspect_until; }
  bool IsUnfinished() const { return raw != nullptr; }
  bool WasPushed() const { return raw != nullptr || finish.has_value(); }
  int num_prompt() const { return static_cast<int>(prompt.size()); }
  // Whether its next token, or score, is the one that can't be had.
  bool NanIsNext() const;
};

// Fills in the right answer.
void Answer(SimRequest& request, int32_t vocab_size);

}  // namespace weft
