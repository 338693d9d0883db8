#include "engine/rank_threads.h"

#include <pthread.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace weft {

RankThreads::RankThreads(std::vector<WorkerParts> ranks, OnStep on_step)
    : on_step_(std::move(on_step)), num_cold_(static_cast<int>(ranks.size())) {
  for (WorkerParts& parts : ranks) ranks_.push_back(std::make_unique<Rank>(std::move(parts)));
  for (size_t i = 0; i < ranks_.size(); ++i) ranks_[i]->thread = std::thread([this, i] { Run(i); });
  num_cold_.Wait();
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
  const absl::Status warm_up = rank.worker.WarmUp();
  num_cold_.DecrementCount();
  if (!warm_up.ok()) return Fail(index, warm_up);
  while (std::optional<Batch> batch = rank.inbox.Pop()) {
    absl::StatusOr<StepResult> result = rank.worker.Step(*batch);
    if (!result.ok()) return Fail(index, result.status());
    on_step_(index, rank.worker, std::move(result));
  }
}

// Told first, so that this is the rank that is named.
void RankThreads::Fail(size_t index, const absl::Status& status) {
  on_step_(index, ranks_[index]->worker, status);
  Abort(status);
}

}  // namespace weft
