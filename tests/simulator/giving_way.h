// Checks that prompts give way: in a step, to those whose tenants were served less; and most of the time, to those who
// decode and come before them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "kernels/check.h"
#include "scheduler/scheduler.h"
#include "scheduler/tenant_account.h"
#include "tests/simulator/plan.h"
#include "tests/simulator/sim_request.h"

namespace weft {

// Of one replica.
class GivingWay {
 public:
  explicit GivingWay(const Plan& plan) : plan_(plan) {
    const EngineLimits& limits = plan.limits;
    const int64_t longest = (limits.max_model_len + limits.block_size - 1) / limits.block_size;
    has_plenty_ = limits.num_blocks >= longest * (limits.max_num_seqs + 1);
  }

  void OnSubmit(const Batch& batch, const std::vector<SimRequest*>& rows, const Scheduler& scheduler, int64_t took_us) {
    if (has_plenty_) {
      for (const auto& sequence : scheduler.running()) {
        const bool is_first = std::none_of(scheduler.running().begin(), scheduler.running().end(), [&](const auto& s) {
          return WasServedLess(*s->request, *sequence->request);
        });
        if (is_first) CheckShare(*sequence, batch, rows);
      }
    }
    const bool disturbs = Disturbs(batch, rows);
    const bool disturbed_before =
        std::any_of(steps_.begin(), steps_.end(), [](const Step& step) { return step.disturbs; });
    CHECK(!disturbs || (!disturbed_before && beyond_us_ <= 1e-3), "prompts that give way have their share of the time");
    steps_.push_back({static_cast<double>(took_us), disturbs});
  }

  // The oldest step was committed.
  void OnCommit() {
    const Step step = steps_.front();
    steps_.pop_front();
    const double share = plan_.scheduler.max_prefill_share;
    beyond_us_ = std::clamp(beyond_us_ + step.took_us * (step.disturbs ? 1 - share : -share), 0.0, 1e6);
  }

 private:
  struct Step {
    double took_us = 0;
    bool disturbs = false;
  };

  static int NumTokens(const Batch& batch, size_t row) { return batch.row_begin[row + 1] - batch.row_begin[row]; }

  static bool WasServedLess(const Request& a, const Request& b) {
    return a.priority == b.priority && a.account->CounterIn(a.priority) < EvenFrom(b);
  }

  // One whose prompt got less than it needs leaves nothing to those whose tenants were served more, but for rounding.
  static void CheckShare(const Sequence& sequence, const Batch& batch, const std::vector<SimRequest*>& rows) {
    const Request& request = *sequence.request;
    const bool needs_more =
        sequence.leaving == Sequence::Leaving::kNo && sequence.num_uncomputed() > 1 && !request.sampling.score_prompt;
    const bool some_score = std::any_of(rows.begin(), rows.end(), [](auto* row) { return row->sampling.score_prompt; });
    if (!needs_more || some_score) return;  // scores cut chunks short
    int num_tokens = 0;
    for (size_t row = 0; row < rows.size(); ++row) {
      const bool is_prompt = NumTokens(batch, row) > 1;
      if (is_prompt && WasServedLess(request, *rows[row]->raw)) num_tokens += NumTokens(batch, row);
    }
    CHECK(num_tokens <= 1 + static_cast<int>(rows.size()), "whose tenant was served less goes first");
  }

  // One token of those that a preempted sequence computes again draws nothing, but for the last.
  static bool Draws(const Batch& batch, size_t row) {
    return std::any_of(batch.sampling.begin(), batch.sampling.end(), [row](const SamplingRow& sampling) {
      return static_cast<size_t>(sampling.row) == row && !sampling.known.has_value();
    });
  }

  // A prompt is computed beside one who decodes and comes before it.
  static bool Disturbs(const Batch& batch, const std::vector<SimRequest*>& rows) {
    for (size_t prompt = 0; prompt < rows.size(); ++prompt) {
      if (NumTokens(batch, prompt) <= 1) continue;
      const Request& request = *rows[prompt]->raw;
      for (size_t row = 0; row < rows.size(); ++row) {
        const Request& other = *rows[row]->raw;
        const bool has_output = batch.positions[static_cast<size_t>(batch.row_begin[row])] >= rows[row]->num_prompt();
        if (NumTokens(batch, row) > 1 || !has_output || !Draws(batch, row)) continue;
        if (other.priority > request.priority || WasServedLess(other, request)) return true;
      }
    }
    return false;
  }

  const Plan& plan_;
  bool has_plenty_ = false;  // nobody is ever short of blocks
  std::deque<Step> steps_;   // in flight
  double beyond_us_ = 0;     // what prompts that give way took beyond their share
};

}  // namespace weft
