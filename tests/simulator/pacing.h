// Checks that prompts leave others their share of a step, and that a step which took too long makes the next smaller.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "tests/simulator/plan.h"
#include "tests/simulator/sim_request.h"

namespace weft {

// Of one replica.
class Pacing {
 public:
  explicit Pacing(const Plan& plan)
      : plan_(plan),
        most_(std::max(1, static_cast<int>(plan.scheduler.max_prefill_share * plan.limits.max_num_batched_tokens))) {}

  void OnSubmit(const Batch& batch, const std::vector<SimRequest*>& rows, int64_t took_us) {
    Step step{.took = absl::Microseconds(took_us) * plan_.limits.num_stages};  // between two tokens of a sequence
    for (const SamplingRow& sampling : batch.sampling) {
      const auto row = static_cast<size_t>(sampling.row);
      const bool is_single = batch.row_begin[row + 1] - batch.row_begin[row] == 1;
      if (sampling.known.has_value() || !is_single) continue;
      step.num_prompt_tokens -= 1;  // one that is drawn, not of a prompt
      const bool has_output = batch.positions[static_cast<size_t>(batch.row_begin[row])] >= rows[row]->num_prompt();
      step.others_decode = step.others_decode || has_output;
    }
    step.num_prompt_tokens += batch.num_tokens();
    CHECK(!step.others_decode || step.num_prompt_tokens <= most_, "prompts leave the others their share");
    steps_.push_back(step);
  }

  // The oldest step was committed.
  void OnCommit(int64_t max_prefill_tokens) {
    const Step step = steps_.front();
    steps_.pop_front();
    CHECK(max_prefill_tokens <= most_, "prompts leave the others their share");
    CHECK(max_prefill_tokens >= std::min(kLeast, most_), "prompts come to an end");
    const int64_t max_prefill_tokens_before = std::exchange(max_prefill_tokens_, max_prefill_tokens);
    if (step.took <= plan_.scheduler.max_itl) num_too_long_ = 0;
    if (!step.others_decode || step.num_prompt_tokens == 0 || step.took <= plan_.scheduler.max_itl) return;
    const bool is_full = step.num_prompt_tokens * 2 >= max_prefill_tokens_before;
    if (num_too_long_ == 0) max_before_ = max_prefill_tokens_before;
    if (is_full) ++num_too_long_;
    CHECK(num_too_long_ < 10 || max_prefill_tokens < max_before_ || max_prefill_tokens <= std::min(kLeast, most_),
          "steps that keep taking too long become smaller");
  }

 private:
  static constexpr int kLeast = 8;  // a prompt must come to an end

  struct Step {
    absl::Duration took;
    int num_prompt_tokens = 0;
    bool others_decode = false;
  };

  const Plan& plan_;
  const int most_;  // prompt tokens of a step while others decode
  std::deque<Step> steps_;
  int64_t max_prefill_tokens_ = 0;  // after the last step
  int num_too_long_ = 0;            // full steps, one after the other
  int64_t max_before_ = 0;          // the first of them
};

}  // namespace weft
