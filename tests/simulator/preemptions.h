// Checks who gives way: nobody in vain, and the last in rank first.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/check.h"
#include "scheduler/scheduler.h"
#include "tests/simulator/scene.h"

namespace weft {

// Around the parts of one replica's loop.
class Preemptions {
 public:
  Preemptions(const Scene& scene, const Scheduler& scheduler) : scene_(scene), scheduler_(scheduler) {
    const auto& before = scheduler.stats().num_preemptions;
    std::copy(before.begin(), before.end(), before_.begin());
    for (const auto& sequence : scheduler.running()) {
      if (sequence->leaving == Sequence::Leaving::kNo) ranked_.push_back(sequence->request.get());
    }
  }

  // After a pull that started nobody and stopped at `blocked`: when those that leave have left, there is room for it.
  // Only where nothing is shared and nobody passed is it known for whom they made way, and how many blocks come free.
  void CheckPull(const SimRequest* blocked) const {
    const int64_t num_gone = Num(PreemptionReason::kPriority) + Num(PreemptionReason::kFairness);
    if (num_gone == 0 || blocked == nullptr || !scene_.plan.HasNoPasses() || scene_.plan.num_replicas > 1) return;
    const EngineLimits& limits = scene_.plan.limits;
    int64_t num_blocks = scheduler_.stats().num_free_blocks;
    int64_t num_staying = 0;
    for (const auto& sequence : scheduler_.running()) {
      const bool stays = sequence->leaving == Sequence::Leaving::kNo;
      num_staying += stays ? 1 : 0;
      num_blocks += stays ? 0 : sequence->blocks.size();
    }
    const auto num_tokens = static_cast<int64_t>(blocked->prompt.size() + blocked->num_tokens);
    const int64_t num_needed = (num_tokens + limits.block_size - 1) / limits.block_size;
    CHECK(num_staying < limits.max_num_seqs && num_needed + num_staying <= num_blocks, "nobody gives way in vain");
  }

  // After steps were submitted: where blocks ran out, the last in rank gave way, and those before it stay.
  void CheckSubmit() const {
    if (Num(PreemptionReason::kBlocks) == 0) return;
    const absl::Time now = scene_.clock.Now();
    bool some_gave_way = false;
    for (const Request* request : ranked_) {
      const auto is_it = [request](const auto& sequence) { return sequence->request.get() == request; };
      const auto found = std::find_if(scheduler_.running().begin(), scheduler_.running().end(), is_it);
      const bool is_here = found != scheduler_.running().end();
      if (is_here && (*found)->leaving == Sequence::Leaving::kFinished) continue;
      if (!is_here && HasEnded(request, now)) continue;
      const bool stays = is_here && (*found)->leaving == Sequence::Leaving::kNo;
      CHECK(!stays || !some_gave_way, "the last in rank gives way first");
      some_gave_way = some_gave_way || !stays;
    }
  }

 private:
  int64_t Num(PreemptionReason reason) const {
    const auto i = static_cast<size_t>(reason);
    return scheduler_.stats().num_preemptions[i] - before_[i];
  }

  // It is not told yet, so it still stands among the live.
  bool HasEnded(const Request* request, absl::Time now) const {
    const auto known = std::find_if(scene_.live.begin(), scene_.live.end(),
                                    [request](const SimRequest* live) { return live->raw == request; });
    return known == scene_.live.end() || (*known)->cancelled || now >= (*known)->deadline;
  }

  const Scene& scene_;
  const Scheduler& scheduler_;
  std::array<int64_t, kNumPreemptionReasons> before_{};
  std::vector<const Request*> ranked_;  // those that run, by rank, as of before
};

}  // namespace weft
