#include "engine/rank_threads.h"

#include <pthread.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace weft {

RankThreads::RankThreads(std::vector<WorkerParts> ranks, OnStep on_step) : on_step_(std::move(on_step)) {
  for (WorkerParts& parts : ranks) ranks_.push_back(std::make_unique<Rank>(std::move(parts)));
  for (size_t i = 0; i < ranks_.size(); ++i) ranks_[i]->thread = std::thread([this, i] { Run(i); });
}

RankThreads::~RankThreads() {
  for (const auto& rank : ranks_) rank->inbox.Close();
  Abort(absl::CancelledError("the engine is closed"));
  for (const auto& rank : ranks_) rank->thread.join();
}

void RankThreads::Push(const Batch& batch) {
  for (const auto& rank : ranks_) rank->inbox.Push(batch);
}

void RankThreads::Abort(const absl::Status& status) {
  for (const auto& rank : ranks_) rank->worker.Abort(status);
}

void RankThreads::Run(size_t index) {
  Rank& rank = *ranks_[index];
  pthread_setname_np(pthread_self(), absl::StrCat("rank ", rank.worker.rank()).c_str());
  rank.worker.UseFromThisThread();
  while (std::optional<Batch> batch = rank.inbox.Pop()) {
    absl::StatusOr<StepResult> result = rank.worker.Step(*batch);
    const bool is_ok = result.ok();
    const absl::Status status = result.status();
    on_step_(index, rank.worker, std::move(result));  // first, so that this is the rank that is named
    if (is_ok) continue;
    return Abort(status);
  }
}

}  // namespace weft
