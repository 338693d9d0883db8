#include "server/engine_keeper.h"

#include <exception>
#include <optional>
#include <thread>
#include <utility>

#include "kernels/status_macros.h"

namespace weft {
namespace {

// What it leaves in slot and block 0 is overwritten by whoever gets them first.
absl::Status WarmUp(Engine& engine) {
  Batch batch;
  batch.token_ids = {0};
  batch.positions = {0};
  batch.row_begin = {0, 1};
  batch.slots = {0};
  batch.slot_starts.push_back({.slot = 0, .num_prompt_tokens = 1, .sampling = {}, .tokens = {}});
  batch.block_updates.push_back({.slot = 0, .index = 0, .block = 0});
  batch.sampling.push_back({.row = 0, .position = 1});
  engine.Submit(batch);
  ASSIGN_OR_RETURN(const StepResult result, engine.Collect());
  if (result.tokens.size() == 1 && result.tokens.front().finite) return absl::OkStatus();
  return absl::InvalidArgumentError("weights: nonfinite_weights: a first step gave logits that are not numbers");
}

absl::StatusOr<std::unique_ptr<Engine>> OpenWarm(EngineSource& source, int replica) {
  try {
    ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, source.Open(replica));
    RETURN_IF_ERROR(WarmUp(*engine));
    return engine;
  } catch (const std::exception&) {  // a file system that throws; memory that the files' own numbers ask for
    return absl::ResourceExhaustedError("model: opening an engine ran out of memory");
  }
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Engine>>> OpenWarmEngines(EngineSource& source, int num_replicas) {
  std::vector<absl::StatusOr<std::unique_ptr<Engine>>> opened(static_cast<size_t>(num_replicas));
  std::vector<std::thread> threads;
  for (int i = 0; i < num_replicas; ++i) {
    threads.emplace_back([&source, &opened, i] { opened[static_cast<size_t>(i)] = OpenWarm(source, i); });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<std::unique_ptr<Engine>> engines;
  for (auto& engine : opened) {
    if (!engine.ok()) return engine.status();
    engines.push_back(*std::move(engine));
  }
  return engines;
}

EngineKeeper::EngineKeeper(EngineSource& source, int num_replicas, const RestartOptions& options, const Clock& clock,
                           OnChange on_change)
    : source_(source), size_(static_cast<size_t>(num_replicas)), clock_(clock), on_change_(std::move(on_change)) {
  for (int i = 0; i < num_replicas; ++i) replicas_.push_back({RestartPolicy(options), {}});
}

absl::StatusOr<std::unique_ptr<Engine>> EngineKeeper::Reopen(int replica, absl::Status death,
                                                             std::unique_ptr<Engine> dead) {
  for (;;) {
    std::optional<absl::Duration> delay;
    {
      absl::MutexLock lock(&mutex_);
      delay = replicas_[static_cast<size_t>(replica)].policy.OnDeath(clock_.Now());
    }
    Change(replica, delay.has_value() ? ReplicaState::kRestarting : ReplicaState::kDown, death);
    // Its memory, before there is another; and after the death was told, for one that hangs may never come to its end.
    dead.reset();
    if (!delay.has_value()) return death;
    if (!WaitUnlessStopped(*delay)) return absl::CancelledError("the server stops");
    absl::StatusOr<std::unique_ptr<Engine>> engine = OpenWarm(source_, replica);
    if (!WaitUnlessStopped(absl::ZeroDuration())) return absl::CancelledError("the server stops");
    if (engine.ok()) {
      Change(replica, ReplicaState::kUp, absl::OkStatus());
      return engine;
    }
    death = engine.status();
  }
}

void EngineKeeper::Change(int replica, ReplicaState state, const absl::Status& why) {
  {
    absl::MutexLock lock(&mutex_);
    Status& status = replicas_[static_cast<size_t>(replica)].status;
    status.state = state;
    if (state == ReplicaState::kRestarting) ++status.num_restarts;
  }
  on_change_(replica, state, why);
}

bool EngineKeeper::WaitUnlessStopped(absl::Duration delay) {
  absl::MutexLock lock(&mutex_);
  return !mutex_.AwaitWithTimeout(absl::Condition(&stopped_), delay);
}

void EngineKeeper::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(stopped_, true)) return;
  }
  source_.Cancel();
}

EngineKeeper::Status EngineKeeper::status(int replica) const {
  absl::MutexLock lock(&mutex_);
  return replicas_[static_cast<size_t>(replica)].status;
}

}  // namespace weft
