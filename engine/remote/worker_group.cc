#include "engine/remote/worker_group.h"

#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/rank_parts.h"
#include "engine/remote/setup_messages.h"
#include "engine/remote/stats_messages.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

// Results that may wait to be collected: an engine has fewer steps in flight.
constexpr size_t kMaxResults = 4096;

bool IsOf(const PlacedWorker& placed, int32_t rank) {
  return std::any_of(placed.ranks.begin(), placed.ranks.end(), [rank](const PlacedRank& r) { return r.rank == rank; });
}

std::string RandomToken() {
  std::array<unsigned char, 16> bytes{};
  RAND_bytes(bytes.data(), static_cast<int>(bytes.size()));
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

}  // namespace

WorkerGroup::WorkerGroup(const WorkerGroupContext& context, const std::string& name, std::function<void()> on_end,
                         std::function<void(double loaded)> on_progress)
    : context_(context),
      name_(name),
      scope_(RandomToken()),
      on_end_(std::move(on_end)),
      on_progress_(std::move(on_progress)),
      workers_(context.placement.size()) {
  absl::MutexLock lock(&mutex_);
  tensor_memories_.resize(static_cast<size_t>(context.setup.parallel.pipeline));
  stage_memories_.resize(static_cast<size_t>(context.setup.parallel.tensor));
  digests_.resize(context.plans.size());
  stats_.ranks.resize(context.plans.size());
  for (size_t i = 0; i < workers_.size(); ++i) {
    workers_[i].placed = &context.placement[i];
    workers_[i].seat = std::make_shared<WorkerSeat>(
        WorkerSeat::Handlers{.on_message = [this, i](const v1::WorkerMessage& message) { OnMessage(i, message); },
                             .on_end = [this, i] { OnLinkEnded(i); }});
  }
  context.coordinator.OpenScope(scope_);
}

WorkerGroup::~WorkerGroup() {
  Fail(absl::CancelledError("the engine is closed"));
  for (Worker& worker : workers_) {
    context_.coordinator.Forget(worker.seat);
    worker.seat->DropHandlers();
  }
  context_.coordinator.CloseScope(scope_);
}

absl::Status WorkerGroup::Load() {
  if (absl::Status status = Start(); !status.ok()) Fail(status);
  RETURN_IF_ERROR(AwaitAll(Phase::kLoaded));
  return absl::OkStatus();
}

absl::Status WorkerGroup::Connect() {
  v1::EngineMessage message;
  message.mutable_connect();
  Send(message);
  return AwaitAll(Phase::kReady);
}

absl::Status WorkerGroup::Start() {
  RETURN_IF_ERROR(MakeMemories());
  for (size_t i = 0; i < workers_.size(); ++i) {
    RETURN_IF_ERROR(status());  // one may have ended already
    const int node = workers_[i].placed->node_rank;
    if (node == 0) {
      RETURN_IF_ERROR(StartProcess(i));
    } else {
      context_.coordinator.ExpectNode(node, workers_[i].seat);
    }
  }
  return absl::OkStatus();
}

absl::Status WorkerGroup::MakeMemories() {
  const ParallelSizes& sizes = context_.setup.parallel;
  for (const PlacedWorker& worker : context_.placement) {
    for (const PlacedRank& rank : worker.ranks) {
      const ParallelPlan& plan = context_.plans[static_cast<size_t>(rank.rank)];
      if (rank.tensor_group == GroupKind::kMemory && plan.tp_rank == 0) {
        ASSIGN_OR_RETURN(std::unique_ptr<GroupMemory> memory, MakeGroupMemory(sizes.tensor, 1));
        absl::MutexLock lock(&mutex_);
        tensor_memories_[static_cast<size_t>(plan.stage)] = std::move(memory);
      }
      if (rank.stages == GroupKind::kMemory && plan.stage == 0) {
        ASSIGN_OR_RETURN(std::unique_ptr<GroupMemory> memory,
                         MakeGroupMemory(sizes.pipeline, MaxMessagesAhead(sizes.pipeline)));
        absl::MutexLock lock(&mutex_);
        stage_memories_[static_cast<size_t>(plan.tp_rank)] = std::move(memory);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status WorkerGroup::StartProcess(size_t index) {
  Worker& worker = workers_[index];
  const std::string token = RandomToken();
  context_.coordinator.Expect(token, worker.seat);
  ChildOptions options{.command = context_.command, .environment = context_.environment, .inherited_fds = {}};
  options.environment.push_back(absl::StrCat("WEFT_WORKER_TOKEN=", token));
  options.command.push_back("--coordinator");
  options.command.push_back(context_.coordinator.local_address());
  for (const PlacedRank& rank : worker.placed->ranks) {
    const ParallelPlan& plan = context_.plans[static_cast<size_t>(rank.rank)];
    for (const auto* memory : {tensor_memories_[static_cast<size_t>(plan.stage)].get(),
                               stage_memories_[static_cast<size_t>(plan.tp_rank)].get()}) {
      if (memory != nullptr) options.inherited_fds.push_back(memory->fd());
    }
  }
  ASSIGN_OR_RETURN(std::unique_ptr<ChildProcess> process, context_.starter.Start(options));
  absl::MutexLock lock(&mutex_);
  worker.heard = absl::Now();
  worker.process = std::move(process);
  if (!failure_.ok()) worker.process->Kill();
  return absl::OkStatus();
}

v1::Assignment WorkerGroup::AssignmentFor(size_t index) const {
  v1::Assignment assignment;
  WriteSetup(context_.setup, assignment);
  assignment.set_config_sha256(context_.config_digest);
  assignment.set_scope(scope_);
  assignment.set_peer_timeout_seconds(absl::ToDoubleSeconds(context_.peer_timeout));
  const PlacedWorker& placed = *workers_[index].placed;
  const int ranks_a_host = context_.setup.parallel.num_ranks() / context_.num_nodes;
  if (placed.node_rank == 0) {
    assignment.set_address(context_.address);
    assignment.set_threads_per_rank(context_.threads_per_rank);
  }
  for (const PlacedRank& rank : placed.ranks) {
    const ParallelPlan& plan = context_.plans[static_cast<size_t>(rank.rank)];
    v1::RankPlace& place = *assignment.add_ranks();
    WritePlan(plan, place);
    place.set_device(context_.first_device + rank.rank % ranks_a_host);
    const auto write = [](GroupKind kind, const GroupMemory* memory, v1::GroupPlace& group) {
      group.set_kind(static_cast<int32_t>(kind));
      if (kind == GroupKind::kMemory) group.set_memory_fd(memory->fd());
    };
    write(rank.tensor_group, tensor_memories_[static_cast<size_t>(plan.stage)].get(), *place.mutable_tensor_group());
    write(rank.stages, stage_memories_[static_cast<size_t>(plan.tp_rank)].get(), *place.mutable_stages());
  }
  return assignment;
}

bool WorkerGroup::AllAre(Phase phase) const {
  return std::all_of(workers_.begin(), workers_.end(), [phase](const Worker& worker) { return worker.phase >= phase; });
}

// Who has joined may take its time, but is heard of.
absl::Status WorkerGroup::AwaitAll(Phase phase) {
  constexpr absl::Duration kLook = absl::Milliseconds(100);
  const absl::Time join_deadline = absl::Now() + context_.join_timeout;
  for (;;) {
    absl::Status problem;
    {
      absl::MutexLock lock(&mutex_);
      const auto is_over = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !failure_.ok() || AllAre(phase); };
      if (mutex_.AwaitWithTimeout(absl::Condition(&is_over), kLook)) return failure_;
      for (const Worker& worker : workers_) problem.Update(WhyLate(worker, join_deadline));
    }
    if (!problem.ok()) Fail(problem);
  }
}

void WorkerGroup::OnMessage(size_t index, const v1::WorkerMessage& message) {
  const absl::Status status = Take(workers_[index], message);
  if (!status.ok()) return Fail(status);
  if (!message.has_hello() || !this->status().ok()) return;  // one that joins a group that has ended is cut off
  v1::EngineMessage answer;
  *answer.mutable_assignment() = AssignmentFor(index);
  workers_[index].seat->Send(answer);
}

// Not OK: it ends the group. No request makes a worker break the rules of the link: that is as if it came from outside.
absl::Status WorkerGroup::Take(Worker& worker, const v1::WorkerMessage& message) {
  absl::MutexLock lock(&mutex_);
  if (!failure_.ok()) return absl::OkStatus();
  worker.heard = absl::Now();
  const auto refuse = [&worker](absl::string_view what) {
    return absl::UnavailableError(absl::StrCat(RanksOf(*worker.placed), " ", what));
  };
  switch (message.what_case()) {
    case v1::WorkerMessage::kHello:
      return Advance(worker, Phase::kJoined);
    case v1::WorkerMessage::kProgress:
      TellProgress(worker, message.progress().done());
      return absl::OkStatus();
    case v1::WorkerMessage::kLoaded:
      RETURN_IF_ERROR(TakeDigests(*worker.placed, message.loaded()));
      TellProgress(worker, 1);
      return Advance(worker, Phase::kLoaded);
    case v1::WorkerMessage::kReady:
      return Advance(worker, Phase::kReady);
    case v1::WorkerMessage::kStepDone:
      if (worker.phase != Phase::kReady || results_.size() >= kMaxResults) {
        return refuse("tells of steps that nobody asked for");
      }
      results_.push_back(message.step_done());
      return absl::OkStatus();
    case v1::WorkerMessage::kFailed:
      return WhyFailed(*worker.placed, message.failed());
    case v1::WorkerMessage::kHeartbeat:
      TakeHeartbeat(worker, message.heartbeat());
      return absl::OkStatus();
    case v1::WorkerMessage::WHAT_NOT_SET:
      break;
  }
  return refuse("says what nobody understands");
}

void WorkerGroup::TellProgress(Worker& worker, double loaded) {
  worker.loaded = std::clamp(loaded, worker.loaded, 1.0);
  if (on_progress_ == nullptr) return;
  double sum = 0;
  for (const Worker& other : workers_) sum += other.loaded;
  on_progress_(sum / static_cast<double>(workers_.size()));
}

void WorkerGroup::TakeHeartbeat(Worker& worker, const v1::Heartbeat& heartbeat) {
  worker.activities.clear();
  for (const v1::RankActivity& activity : heartbeat.activities()) {
    const bool is_one_too_many = worker.activities.size() >= worker.placed->ranks.size();
    if (IsOf(*worker.placed, activity.rank()) && !is_one_too_many) worker.activities.push_back(ReadActivity(activity));
  }
  for (const v1::RankStats& stats : heartbeat.stats()) {
    if (IsOf(*worker.placed, stats.rank())) stats_.ranks[static_cast<size_t>(stats.rank())] = ReadStats(stats);
  }
  stats_.with_work = work_.Total();
}

absl::Status WorkerGroup::Advance(Worker& worker, Phase phase) {
  const bool is_next = static_cast<int>(phase) == static_cast<int>(worker.phase) + 1;
  if (!is_next) return absl::UnavailableError(absl::StrCat(RanksOf(*worker.placed), " speaks out of turn"));
  worker.phase = phase;
  return absl::OkStatus();
}

absl::Status WorkerGroup::TakeDigests(const PlacedWorker& placed, const v1::Loaded& loaded) {
  const auto refuse = [&placed](absl::string_view what) {
    return absl::InternalError(absl::StrCat(RanksOf(placed), " ", what));
  };
  if (static_cast<size_t>(loaded.ranks_size()) != placed.ranks.size()) return refuse("loaded ranks not its own");
  for (const v1::RankLoaded& rank : loaded.ranks()) {
    if (!IsOf(placed, rank.rank())) return refuse("loaded ranks not its own");
    Digests& digests = digests_[static_cast<size_t>(rank.rank())];
    if (!digests.empty() || rank.digests().empty()) return refuse("doesn't say what it has loaded");
    digests = ReadDigests(rank);
  }
  return absl::OkStatus();
}

void WorkerGroup::OnLinkEnded(size_t index) {
  if (status().ok()) Fail(WhyLost(index));
}

std::vector<WorkerGroup::Digests> WorkerGroup::digests() const {
  absl::MutexLock lock(&mutex_);
  return digests_;
}

EngineStats WorkerGroup::stats() const {
  absl::MutexLock lock(&mutex_);
  return stats_;
}

// One that is gone is noticed by its link.
void WorkerGroup::Send(const v1::EngineMessage& message) {
  for (const Worker& worker : workers_) worker.seat->Send(message);
}

absl::StatusOr<v1::StepDone> WorkerGroup::NextResult(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  const auto has_news = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !failure_.ok() || !results_.empty(); };
  if (!mutex_.AwaitWithDeadline(absl::Condition(&has_news), deadline)) return absl::DeadlineExceededError("");
  if (!failure_.ok()) return failure_;
  v1::StepDone result = std::move(results_.front());
  results_.pop_front();
  return result;
}

void WorkerGroup::Fail(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    if (!failure_.ok()) return;
    failure_ = absl::Status(status.code(), absl::StrCat(name_, ": ", status.message()));
    for (const auto* memories : {&tensor_memories_, &stage_memories_}) {
      for (const auto& memory : *memories) {
        if (memory != nullptr) memory->Abort(status);
      }
    }
    for (Worker& worker : workers_) {
      worker.seat->Cut();
      if (worker.process != nullptr) worker.process->Kill();
    }
  }
  on_end_();
}

absl::Status WorkerGroup::status() const {
  absl::MutexLock lock(&mutex_);
  return failure_;
}

}  // namespace weft
