// Checks who gives way: nobody in vain, and the last in rank first.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/check.h"
#include "scheduler/scheduler.h"
#include "scheduler/tenant_account.h"
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

  // After a pull that started nobody and stopped at `blocked`. Only where nothing is shared and nobody passed is it
  // known for whom others made way, and how many blocks come free.
  void CheckPull(const SimRequest& blocked) const {
    if (!scene_.plan.HasNoPasses() || scene_.plan.num_replicas > 1) return;
    if (Num(PreemptionReason::kPriority) + Num(PreemptionReason::kFairness) > 0) CheckSuffices(blocked);
    for (const Request* request : ranked_) {
      if (Num(PreemptionReason::kFairness) > 0 && request->priority == blocked.priority && !Stays(request)) {
        CHECK(MayTakeFrom(*blocked.raw, *request->account, 1), "a row goes to who was served less, or runs less");
      }
    }
    CheckNobodyElseMust(blocked);
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
  // When those that leave have left, there is room for it.
  void CheckSuffices(const SimRequest& blocked) const {
    int64_t num_blocks = scheduler_.stats().num_free_blocks;
    for (const auto& sequence : scheduler_.running()) {
      num_blocks += sequence->leaving == Sequence::Leaving::kNo ? 0 : sequence->blocks.size();
    }
    const int64_t num_staying = NumStaying(nullptr);
    CHECK(num_staying < scene_.plan.limits.max_num_seqs && NumNeeded(blocked) + num_staying <= num_blocks,
          "nobody gives way in vain");
  }

  // Where only a row is missing, nobody has one that the tenant of `blocked` may take.
  void CheckNobodyElseMust(const SimRequest& blocked) const {
    const EngineLimits& limits = scene_.plan.limits;
    const int64_t longest = (limits.max_model_len + limits.block_size - 1) / limits.block_size;
    const auto& running = scheduler_.running();
    // Each that runs keeps one block free to grow.
    if (limits.num_blocks < (longest + 1) * limits.max_num_seqs || NumStaying(nullptr) < limits.max_num_seqs) return;
    int num_uncomputed = 0;
    for (const auto& sequence : running) num_uncomputed += sequence->num_uncomputed();
    if (num_uncomputed >= limits.max_num_batched_tokens) return;  // the step may be full
    for (const auto& sequence : running) {
      const Request& other = *sequence->request;
      CHECK(other.priority >= blocked.priority, "a higher class takes a row");
      CHECK(other.priority > blocked.priority || !MayTakeFrom(*blocked.raw, *other.account, 0),
            "who was served less, or runs less, takes a row");
    }
  }

  // Whether the newcomer's tenant may have a row of the other's; or may have had, when so many were `given` already.
  bool MayTakeFrom(const Request& newcomer, const TenantAccount& other, int given) const {
    const TenantAccount& own = *newcomer.account;
    const Priority priority = newcomer.priority;
    if (&own == &other || other.CounterIn(priority) < own.EvenFrom(priority, own.policy.weight)) return false;
    const auto rows_left = static_cast<double>(NumStaying(&other) + given - 1);
    if (own.CounterIn(priority) < other.EvenFrom(priority, other.policy.weight)) return rows_left > 0;
    const auto rows = static_cast<double>(NumStaying(&own) + 1);
    return rows_left / other.policy.weight >= rows / own.policy.weight;
  }

  // Of a tenant, or of all.
  int64_t NumStaying(const TenantAccount* account) const {
    return std::count_if(scheduler_.running().begin(), scheduler_.running().end(), [account](const auto& sequence) {
      return sequence->leaving == Sequence::Leaving::kNo &&
             (account == nullptr || sequence->request->account == account);
    });
  }

  bool Stays(const Request* request) const {
    return std::any_of(scheduler_.running().begin(), scheduler_.running().end(), [request](const auto& sequence) {
      return sequence->request.get() == request && sequence->leaving == Sequence::Leaving::kNo;
    });
  }

  int64_t NumNeeded(const SimRequest& request) const {
    const int64_t block_size = scene_.plan.limits.block_size;
    return (static_cast<int64_t>(request.prompt.size() + request.num_tokens) + block_size - 1) / block_size;
  }

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
