#include "engine/remote/remote_engine.h"

#include <algorithm>
#include <deque>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "engine/remote/setup_messages.h"
#include "engine/remote/step_messages.h"
#include "engine/step_deadline.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

class RemoteEngine final : public Engine {
 public:
  RemoteEngine(const EngineLimits& limits, std::shared_ptr<WorkerGroup> group, absl::Duration step_timeout)
      : limits_(limits), group_(std::move(group)), deadline_(step_timeout) {}

  const EngineLimits& limits() const override { return limits_; }
  bool HasRoom() const override { return static_cast<int>(in_flight_.size()) < 2 * limits_.num_stages; }
  bool HasInFlight() const override { return !in_flight_.empty(); }
  absl::Status status() const override { return group_->status(); }
  EngineStats stats() const override { return group_->stats(); }

  void Submit(const Batch& batch) override {
    CHECK(HasRoom(), "Submit requires room");
    if (in_flight_.empty()) {
      since_ = absl::Now();
      group_->work().Start();
    }
    in_flight_.push_back({batch.step, batch.num_tokens(), batch.sampling.size()});
    message_.Clear();
    WriteStep(batch, *message_.mutable_step());
    group_->Send(message_);
  }

  absl::StatusOr<StepResult> Collect() override {
    CHECK(HasInFlight(), "Collect requires a step in flight");
    absl::StatusOr<StepResult> result = Await(in_flight_.front());
    if (!result.ok()) {
      group_->Fail(result.status());
      return group_->status();
    }
    const absl::Time now = absl::Now();
    deadline_.Observe(now - std::exchange(since_, now), in_flight_.front().num_tokens);
    in_flight_.pop_front();
    if (in_flight_.empty()) group_->work().Stop();
    return result;
  }

 private:
  struct InFlight {
    int64_t step = 0;
    int num_tokens = 0;
    size_t num_drawn = 0;
  };

  // An answer that came already is no news.
  absl::StatusOr<v1::StepDone> NextResult(const InFlight& oldest, absl::Time deadline) {
    absl::StatusOr<v1::StepDone> message = group_->NextResult(deadline);
    while (message.ok() && message->step() < oldest.step) message = group_->NextResult(deadline);
    return message;
  }

  absl::StatusOr<StepResult> Await(const InFlight& oldest) {
    const absl::Duration allowed = deadline_.Allowed(oldest.num_tokens);
    const auto is_late = [this](const absl::Status& status) {
      return absl::IsDeadlineExceeded(status) && group_->status().ok();
    };
    absl::StatusOr<v1::StepDone> message = NextResult(oldest, since_ + allowed);
    if (is_late(message.status())) message = NextResult(oldest, absl::Now() + StepDeadline::Grace(allowed));
    if (is_late(message.status())) return Hung(oldest.step, allowed);
    if (!message.ok()) return message.status();
    if (message->step() != oldest.step) {
      return absl::UnavailableError(
          absl::StrCat("the result of step ", message->step(), " came for step ", oldest.step));
    }
    return ReadResult(*message, oldest.num_drawn, limits_);
  }

  // A process that is silent altogether was stopped from outside; one that lives may be hung in what it computes.
  absl::Status Hung(int64_t step, absl::Duration allowed) const {
    const WorkerGroup::Diagnosis diagnosis = group_->Diagnose();
    const std::string text =
        absl::StrFormat("step %d has taken more than %.1f s: %s", step, absl::ToDoubleSeconds(allowed), diagnosis.text);
    return diagnosis.someone_is_silent ? absl::UnavailableError(text) : absl::InternalError(text);
  }

  const EngineLimits limits_;
  const std::shared_ptr<WorkerGroup> group_;
  StepDeadline deadline_;
  std::deque<InFlight> in_flight_;
  absl::Time since_;  // the oldest in flight has been the oldest
  v1::EngineMessage message_;
};

}  // namespace

RemoteEngines::RemoteEngines(const ModelConfig& config, const EngineSetup& setup, const RemoteOptions& options)
    : config_(config), setup_(setup), options_(options), loaded_(static_cast<size_t>(options.num_replicas), 0) {}

RemoteEngines::~RemoteEngines() = default;

absl::StatusOr<std::unique_ptr<RemoteEngines>> RemoteEngines::Start(const ModelConfig& config, const EngineSetup& setup,
                                                                    const RemoteOptions& options) {
  auto engines = std::unique_ptr<RemoteEngines>(new RemoteEngines(config, setup, options));
  ASSIGN_OR_RETURN(engines->plans_, MakePlans(config, setup.parallel));
  ASSIGN_OR_RETURN(engines->limits_, LimitsFor(config, setup, engines->plans_));
  ASSIGN_OR_RETURN(engines->placement_, PlaceRanks(setup.parallel, options.num_nodes));
  ASSIGN_OR_RETURN(engines->config_digest_, ConfigDigest(setup.model_dir.path));
  ASSIGN_OR_RETURN(engines->coordinator_, Coordinator::Start(options.coordinator));
  return engines;
}

absl::StatusOr<std::unique_ptr<Engine>> RemoteEngines::Open(int replica) {
  const int num_here = options_.num_replicas * setup_.parallel.num_ranks() / options_.num_nodes;
  const WorkerGroupContext context{.config = config_,
                                   .setup = setup_,
                                   .plans = plans_,
                                   .placement = placement_,
                                   .config_digest = config_digest_,
                                   .address = options_.address,
                                   .threads_per_rank = std::max(1, NumThreads(setup_.device) / num_here),
                                   .num_nodes = options_.num_nodes,
                                   .first_device = replica * setup_.parallel.num_ranks() / options_.num_nodes,
                                   .command = options_.command,
                                   .environment = options_.environment,
                                   .join_timeout = options_.join_timeout,
                                   .peer_timeout = std::max(absl::Seconds(60), options_.step_timeout * 2),
                                   .coordinator = *coordinator_,
                                   .starter = starter_};
  const auto group = std::make_shared<WorkerGroup>(
      context, absl::StrCat("replica ", replica), [this] { OnEnd(); },
      [this, replica](double loaded) { OnProgress(replica, loaded); });
  {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return absl::CancelledError("the server stops");
    std::erase_if(opening_, [](const auto& other) { return other.expired(); });
    opening_.push_back(group);
  }
  RETURN_IF_ERROR(group->Load());
  RETURN_IF_ERROR(CheckDigests(*group));
  RETURN_IF_ERROR(group->Connect());
  {
    absl::MutexLock lock(&mutex_);
    // Without owning another replica's group for a moment, which may then end here.
    std::erase_if(opening_,
                  [&group](const auto& other) { return !other.owner_before(group) && !group.owner_before(other); });
    if (cancelled_) return absl::CancelledError("the server stops");
  }
  return std::make_unique<RemoteEngine>(limits_, group, options_.step_timeout);
}

// All replicas hold what the first one did.
absl::Status RemoteEngines::CheckDigests(const WorkerGroup& group) {
  const std::vector<WorkerGroup::Digests> loaded = group.digests();
  absl::MutexLock lock(&mutex_);
  if (digests_.empty()) digests_ = loaded;
  for (size_t rank = 0; rank < loaded.size(); ++rank) {
    if (absl::Status status = CompareDigests(digests_[rank], loaded[rank]); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("rank ", rank, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

void RemoteEngines::Cancel() {
  std::vector<std::weak_ptr<WorkerGroup>> groups;
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    groups = opening_;
  }
  for (const std::weak_ptr<WorkerGroup>& group : groups) {
    if (const auto alive = group.lock(); alive != nullptr) alive->Fail(absl::CancelledError("the server stops"));
  }
}

// Of a thousand parts, since replicas that haven't begun can't say how much they will load.
void RemoteEngines::OnProgress(int replica, double loaded) {
  constexpr int64_t kAll = 1000;
  absl::MutexLock lock(&mutex_);
  double& own = loaded_[static_cast<size_t>(replica)];
  if (own >= 1 || setup_.weights.observer.on_bytes == nullptr) return;
  own = std::max(own, loaded);
  const double sum = std::accumulate(loaded_.begin(), loaded_.end(), 0.0);
  setup_.weights.observer.on_bytes(static_cast<int64_t>(sum * kAll / static_cast<double>(loaded_.size())), kAll);
}

void RemoteEngines::SetOnDeath(std::function<void()> on_death) {
  absl::MutexLock lock(&mutex_);
  on_death_ = std::move(on_death);
}

void RemoteEngines::OnEnd() {
  absl::MutexLock lock(&mutex_);
  if (on_death_ != nullptr) on_death_();
}

}  // namespace weft
