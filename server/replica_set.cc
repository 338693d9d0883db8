#include "server/replica_set.h"

#include <algorithm>
#include <utility>

namespace weft {

ReplicaSet::ReplicaSet(std::vector<std::unique_ptr<Engine>> engines, const SchedulerOptions& options,
                       const RestartOptions& restarts, const Parts& parts, std::function<void(const Change&)> on_change)
    : queue_(parts.dispatcher.queue()),
      source_(parts.source),
      keeper_(parts.source, static_cast<int>(engines.size()), restarts, parts.clock,
              [this, on_change = std::move(on_change)](int replica, ReplicaState state, const absl::Status& why) {
                queue_.SetNumReplicas(std::max(1, NumIn(ReplicaState::kUp)));
                on_change({replica, state, why});
              }) {
  for (std::unique_ptr<Engine>& engine : engines) {
    const auto id = static_cast<int>(replicas_.size());
    replicas_.push_back(std::make_unique<Replica>(id, std::move(engine), options, parts.dispatcher, parts.clock));
  }
  source_.SetOnDeath([this] { queue_.Wake(); });
  for (size_t i = 0; i < replicas_.size(); ++i) {
    replicas_[i]->Start([this, id = static_cast<int>(i)](const absl::Status& death, std::unique_ptr<Engine> dead) {
      return keeper_.Reopen(id, death, std::move(dead));
    });
  }
}

ReplicaSet::~ReplicaSet() { End(); }

void ReplicaSet::End() {
  queue_.Close();
  keeper_.Stop();
  for (const auto& replica : replicas_) replica->Join();
  source_.SetOnDeath(nullptr);
}

int ReplicaSet::NumIn(ReplicaState state) const {
  int count = 0;
  for (size_t i = 0; i < keeper_.size(); ++i) count += keeper_.status(static_cast<int>(i)).state == state;
  return count;
}

std::vector<SchedulerSnapshot::Replica> ReplicaSet::Snapshot() const {
  std::vector<SchedulerSnapshot::Replica> replicas;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    const EngineKeeper::Status status = keeper_.status(static_cast<int>(i));
    replicas.push_back({.stats = replicas_[i]->stats(),
                        .is_up = status.state == ReplicaState::kUp,
                        .num_restarts = status.num_restarts,
                        .is_down_for_good = status.state == ReplicaState::kDown,
                        .engine = replicas_[i]->engine_stats()});
  }
  return replicas;
}

}  // namespace weft
