#include "engine/rank_threads.h"

#include <pthread.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

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
  // A device's next step is begun while the last one is under way, so that it never waits for the host.
  while (std::optional<std::optional<Batch>> news = rank.inbox.Pop()) {
    const absl::Status status = news->has_value() ? Begin(index, **news) : OnDone(index);
    if (!status.ok()) return Fail(index, status);
  }
}

absl::Status RankThreads::Begin(size_t index, Batch& batch) {
  Rank& rank = *ranks_[index];
  while (rank.worker.MustFinish()) RETURN_IF_ERROR(Finish(index));
  const bool is_done = rank.worker.Begin(batch, [&rank] { rank.inbox.Push(std::nullopt); });
  return is_done ? OnDone(index) : absl::OkStatus();
}

// It may have been finished already, for the sake of the next one.
absl::Status RankThreads::OnDone(size_t index) {
  Rank& rank = *ranks_[index];
  ++rank.num_done;
  return rank.num_finished < rank.num_done ? Finish(index) : absl::OkStatus();
}

absl::Status RankThreads::Finish(size_t index) {
  Rank& rank = *ranks_[index];
  absl::StatusOr<StepResult> result = rank.worker.Finish();
  if (!result.ok()) return result.status();
  ++rank.num_finished;
  on_step_(index, rank.worker, std::move(result));
  return absl::OkStatus();
}

// Told first, so that this is the rank that is named.
void RankThreads::Fail(size_t index, const absl::Status& status) {
  on_step_(index, ranks_[index]->worker, status);
  Abort(status);
}

}  // namespace weft
