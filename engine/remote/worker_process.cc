#include "engine/remote/worker_process.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "engine/memory_need.h"
#include "engine/rank_parts.h"
#include "engine/rank_threads.h"
#include "engine/remote/link_limits.h"
#include "engine/remote/link_rendezvous.h"
#include "engine/remote/local_address.h"
#include "engine/remote/placement.h"
#include "engine/remote/setup_messages.h"
#include "engine/remote/stats_messages.h"
#include "engine/remote/step_messages.h"
#include "engine/weights.h"
#include "grpcpp/grpcpp.h"
#include "kernels/device.h"
#include "kernels/status_macros.h"
#include "weft/v1/worker.grpc.pb.h"

namespace weft {
namespace {

constexpr absl::Duration kHeartbeat = absl::Milliseconds(250);
constexpr int kReconnectMs = 1'000;
constexpr absl::Duration kRanksEnd = absl::Seconds(10);

bool IsLocal(const WorkerProcessOptions& options) { return !options.token.empty(); }

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const WorkerProcessOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxWorkerMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMs);
  if (IsLocal(options)) {
    return grpc::CreateCustomChannel(options.coordinator, grpc::InsecureChannelCredentials(), arguments);
  }
  ASSIGN_OR_RETURN(const auto credentials, MutualTlsClient(options.tls));
  return grpc::CreateCustomChannel(options.coordinator, credentials, arguments);
}

// What the worker has loaded, before its ranks have met the others.
struct LoadedRank {
  PlacedRank placed;
  ParallelPlan plan;
  DeviceOptions device;
  std::shared_ptr<const ModelWeights> weights;
  int tensor_fd = -1;
  int stages_fd = -1;
};

class WorkerLife {
 public:
  explicit WorkerLife(const WorkerProcessOptions& options) : options_(options) {}
  ~WorkerLife() { StopHeartbeat(); }

  absl::Status Run() {
    ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, OpenChannel(options_));
    stub_ = v1::Workers::NewStub(channel);
    if (!IsLocal(options_)) context_.set_wait_for_ready(true);
    stream_ = stub_->Join(&context_);
    const absl::Status status = Serve();
    StopHeartbeat();
    EndRanks();
    if (!status.ok()) Say(status, -1, -1);
    stream_->WritesDone();
    context_.TryCancel();
    const grpc::Status end = stream_->Finish();
    if (!status.ok()) return OfThisLife(status);
    const bool is_refusal =
        end.error_code() == grpc::FAILED_PRECONDITION || end.error_code() == grpc::PERMISSION_DENIED;
    const auto code = is_refusal ? static_cast<absl::StatusCode>(end.error_code()) : absl::StatusCode::kUnavailable;
    return absl::Status(code, end.error_message().empty() ? "the link to the server has ended"
                                                          : absl::StrCat("server: ", end.error_message()));
  }

 private:
  using Stream = grpc::ClientReaderWriterInterface<v1::WorkerMessage, v1::EngineMessage>;

  // OK: the link has ended.
  absl::Status Serve() {
    if (!SayHello()) return absl::OkStatus();
    v1::EngineMessage message;
    if (!stream_->Read(&message)) return absl::OkStatus();
    if (!message.has_assignment()) return absl::InternalError("the server begins without an assignment");
    heartbeat_ = std::thread([this] { Heartbeats(); });
    const v1::Assignment assignment = message.assignment();
    RETURN_IF_ERROR(Load(assignment));
    if (!stream_->Read(&message)) return absl::OkStatus();
    if (!message.has_connect()) return absl::InternalError("the server doesn't let the ranks meet");
    RETURN_IF_ERROR(Connect(assignment));
    v1::WorkerMessage ready;
    ready.mutable_ready();
    Say(ready);
    while (stream_->Read(&message)) {
      if (!message.has_step()) return absl::InternalError("the server says what nobody understands");
      ASSIGN_OR_RETURN(const Batch batch, ReadStep(message.step(), limits_));
      ranks_->Push(batch);
    }
    return absl::OkStatus();
  }

  // What fails here may be otherwise in the next life: the server alone says that it never wants this worker.
  static absl::Status OfThisLife(const absl::Status& failure) {
    const bool sounds_final =
        absl::IsFailedPrecondition(failure) || absl::IsPermissionDenied(failure) || absl::IsInvalidArgument(failure);
    return sounds_final ? absl::InternalError(failure.message()) : failure;
  }

  void EndRanks() {
    absl::Notification ended;
    std::thread watch([this, &ended] {
      if (!ended.WaitForNotificationWithTimeout(kRanksEnd) && options_.on_stuck != nullptr) options_.on_stuck();
    });
    ranks_.reset();
    ended.Notify();
    watch.join();
  }

  bool SayHello() {
    v1::WorkerMessage message;
    v1::Hello& hello = *message.mutable_hello();
    hello.set_protocol(kWorkerProtocol);
    hello.set_version(options_.version);
    hello.set_token(options_.token);
    hello.set_node_rank(options_.node_rank);
    hello.set_num_nodes(options_.num_nodes);
    hello.set_process_id(getpid());
    return Say(message);
  }

  absl::Status Load(const v1::Assignment& assignment) {
    ASSIGN_OR_RETURN(setup_, ReadSetup(assignment));
    ASSIGN_OR_RETURN(const std::string digest, ConfigDigest(setup_.model_dir.path));
    if (digest != assignment.config_sha256()) {
      return absl::FailedPreconditionError(
          absl::StrCat(setup_.model_dir.path, "/config.json is not what the server has there"));
    }
    ASSIGN_OR_RETURN(config_, LoadModelConfig(setup_.model_dir));
    ASSIGN_OR_RETURN(const std::vector<ParallelPlan> plans, MakePlans(config_, setup_.parallel));
    ASSIGN_OR_RETURN(limits_, LimitsFor(config_, setup_, plans));
    const int num_ranks = std::max(1, assignment.ranks_size());
    const int threads = assignment.threads_per_rank();
    setup_.device.num_threads =
        threads > 0 ? threads : std::max(1, NumThreads(setup_.device) / num_ranks / options_.num_sharing);
    setup_.weights.observer.on_bytes = [this](int64_t done, int64_t total) { TellProgress(done, total); };
    std::vector<ParallelPlan> own_plans;
    for (const v1::RankPlace& place : assignment.ranks()) {
      RETURN_IF_ERROR(CheckPlan(place, plans));
      for (const v1::GroupPlace* group : {&place.tensor_group(), &place.stages()}) {
        const bool is_kind = group->kind() >= 0 && group->kind() <= static_cast<int32_t>(GroupKind::kHosts);
        if (!is_kind) return absl::InternalError("the server groups ranks in a way that nobody knows");
      }
      LoadedRank& rank = loaded_.emplace_back();
      rank.placed = {.rank = place.rank(),
                     .tensor_group = static_cast<GroupKind>(place.tensor_group().kind()),
                     .stages = static_cast<GroupKind>(place.stages().kind())};
      rank.plan = plans[static_cast<size_t>(place.rank())];
      rank.device = setup_.device;
      rank.device.device = place.device();
      rank.tensor_fd = place.tensor_group().memory_fd();
      rank.stages_fd = place.stages().memory_fd();
      own_plans.push_back(rank.plan);
    }
    if (loaded_.empty()) return absl::InternalError("the server has no rank for this worker");
    RETURN_IF_ERROR(CheckRanksMemory(own_plans));
    ASSIGN_OR_RETURN(std::vector<ModelWeights> weights, LoadOnDevices(own_plans));
    v1::WorkerMessage message;
    for (size_t i = 0; i < loaded_.size(); ++i) {
      loaded_[i].weights = std::make_shared<const ModelWeights>(std::move(weights[i]));
      v1::RankLoaded& rank = *message.mutable_loaded()->add_ranks();
      rank.set_rank(loaded_[i].placed.rank);
      WriteDigests(loaded_[i].weights->digests, rank);
    }
    Say(message);
    return absl::OkStatus();
  }

  // What a device has is known here alone.
  absl::Status CheckRanksMemory(const std::vector<ParallelPlan>& plans) {
    if (setup_.device.kind == DeviceKind::kCpu) {
      if (options_.usable_memory_bytes == 0) return absl::OkStatus();
      return CheckMemory(MemoryNeedOf(config_, setup_, plans), options_.usable_memory_bytes);
    }
    for (const LoadedRank& rank : loaded_) {
      ASSIGN_OR_RETURN(const int64_t free, FreeCudaMemory(rank.device.device));
      RETURN_IF_ERROR(CheckMemory(MemoryNeedOf(config_, setup_, {rank.plan}), free));
    }
    return absl::OkStatus();
  }

  // On the CPU all ranks' on one; a CUDA device has those of its rank.
  absl::StatusOr<std::vector<ModelWeights>> LoadOnDevices(const std::vector<ParallelPlan>& plans) {
    const size_t ranks_a_device = setup_.device.kind == DeviceKind::kCpu ? plans.size() : 1;
    std::vector<ModelWeights> weights;
    for (size_t i = 0; i < plans.size(); i += ranks_a_device) {
      ASSIGN_OR_RETURN(const std::unique_ptr<Backend> device, OpenDevice(loaded_[i].device));
      ASSIGN_OR_RETURN(std::vector<ModelWeights> loaded,
                       LoadRankWeights(setup_.model_dir, config_, absl::MakeConstSpan(plans).subspan(i, ranks_a_device),
                                       setup_.weights, *device));
      std::move(loaded.begin(), loaded.end(), std::back_inserter(weights));
    }
    return weights;
  }

  absl::Status Connect(const v1::Assignment& assignment) {
    ASSIGN_OR_RETURN(std::vector<RankCommunicators> communicators, MeetOthers(assignment));
    std::vector<WorkerParts> parts;
    for (size_t i = 0; i < loaded_.size(); ++i) {
      EngineSetup setup = setup_;
      setup.device = loaded_[i].device;
      ASSIGN_OR_RETURN(WorkerParts rank, MakeWorkerParts(config_, setup, limits_, loaded_[i].plan,
                                                         std::move(loaded_[i].weights), std::move(communicators[i])));
      parts.push_back(std::move(rank));
    }
    auto ranks = std::make_unique<RankThreads>(
        std::move(parts), [this](size_t rank, const Worker& worker, const absl::StatusOr<StepResult>& result) {
          OnStep(rank, worker, result);
        });
    absl::MutexLock lock(&mutex_);
    ranks_ = std::move(ranks);
    return absl::OkStatus();
  }

  // Groups across hosts connect while all their ranks wait for each other: so on a thread for each rank, and first the
  // tensor groups.
  absl::StatusOr<std::vector<RankCommunicators>> MeetOthers(const v1::Assignment& assignment) {
    std::vector<RankCommunicators> communicators(loaded_.size());
    RETURN_IF_ERROR(OpenThreadGroups(communicators));
    std::vector<absl::Status> statuses(loaded_.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < loaded_.size(); ++i) {
      threads.emplace_back([&, i] { statuses[i] = MeetAs(loaded_[i], assignment, communicators[i]); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& status : statuses) RETURN_IF_ERROR(status);
    return communicators;
  }

  // All ranks of such a group are here, in their order.
  absl::Status OpenThreadGroups(std::vector<RankCommunicators>& communicators) {
    for (size_t first = 0; first < loaded_.size(); ++first) {
      const ParallelPlan& plan = loaded_[first].plan;
      if (loaded_[first].placed.tensor_group == GroupKind::kThreads && plan.tp_rank == 0) {
        ASSIGN_OR_RETURN(auto group, OpenGroup(plan.tp_size, 1));
        for (size_t r = 0; r < group.size(); ++r) communicators[first + r].tensor_group = std::move(group[r]);
      }
      if (loaded_[first].placed.stages == GroupKind::kThreads && plan.stage == 0) {
        ASSIGN_OR_RETURN(auto group, OpenGroup(plan.num_stages, MaxMessagesAhead(plan.num_stages)));
        for (size_t s = 0; s < group.size(); ++s) {
          communicators[first + s * static_cast<size_t>(plan.tp_size)].stages = std::move(group[s]);
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status MeetAs(const LoadedRank& rank, const v1::Assignment& assignment, RankCommunicators& communicators) {
    const ParallelPlan& plan = rank.plan;
    if (rank.placed.tensor_group == GroupKind::kMemory) {
      ASSIGN_OR_RETURN(communicators.tensor_group, JoinGroup(rank.tensor_fd, plan.tp_rank));
    } else if (rank.placed.tensor_group == GroupKind::kHosts) {
      ASSIGN_OR_RETURN(communicators.tensor_group, MeetHosts(assignment, absl::StrCat("stage", plan.stage),
                                                             {.rank = plan.tp_rank, .size = plan.tp_size}));
    }
    if (rank.placed.stages == GroupKind::kMemory) {
      ASSIGN_OR_RETURN(communicators.stages, JoinGroup(rank.stages_fd, plan.stage));
    } else if (rank.placed.stages == GroupKind::kHosts) {
      ASSIGN_OR_RETURN(communicators.stages, MeetHosts(assignment, absl::StrCat("stages", plan.tp_rank),
                                                       {.rank = plan.stage,
                                                        .size = plan.num_stages,
                                                        .max_messages_ahead = MaxMessagesAhead(plan.num_stages)}));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Communicator>> MeetHosts(const v1::Assignment& assignment, const std::string& group,
                                                          HostGroupOptions options) {
    options.timeout = absl::Seconds(std::min(std::max(1.0, assignment.peer_timeout_seconds()), 3600.0));
    options.hostname = options_.address.empty() ? assignment.address() : options_.address;
    if (options.hostname.empty()) {
      ASSIGN_OR_RETURN(options.hostname, LocalAddressTowards(options_.coordinator));
    }
    LinkRendezvous store(*stub_, assignment.scope(), group);
    return ConnectGroup(options, store);
  }

  void OnStep(size_t index, const Worker& worker, const absl::StatusOr<StepResult>& result) {
    if (!result.ok()) return Say(result.status(), loaded_[index].placed.rank, worker.activity().step);
    if (!worker.IsReporter()) return;
    v1::WorkerMessage message;
    WriteResult(*result, *message.mutable_step_done());
    Say(message);
  }

  void TellProgress(int64_t done, int64_t total) {
    constexpr absl::Duration kInterval = absl::Milliseconds(100);
    const absl::Time now = absl::Now();
    if (done < total && now - told_progress_ < kInterval) return;
    told_progress_ = now;
    v1::WorkerMessage message;
    message.mutable_progress()->set_done(total == 0 ? 1 : static_cast<double>(done) / static_cast<double>(total));
    Say(message);
  }

  void Heartbeats() {
    while (!stopping_.WaitForNotificationWithTimeout(kHeartbeat)) {
      v1::WorkerMessage message;
      message.mutable_heartbeat();
      {
        absl::MutexLock lock(&mutex_);
        if (ranks_ != nullptr) Describe(*message.mutable_heartbeat());
      }
      Say(message);
    }
  }

  void Describe(v1::Heartbeat& heartbeat) const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    for (size_t i = 0; i < ranks_->size(); ++i) {
      const Worker& worker = ranks_->worker(i);
      v1::RankStats& stats = *heartbeat.add_stats();
      WriteStats(worker.stats(), stats);
      stats.set_rank(loaded_[i].placed.rank);
      WriteActivity(worker.activity(), *heartbeat.add_activities());
    }
  }

  void StopHeartbeat() {
    if (!heartbeat_.joinable()) return;
    stopping_.Notify();
    heartbeat_.join();
  }

  bool Say(const v1::WorkerMessage& message) {
    absl::MutexLock lock(&saying_);
    return stream_->Write(message);
  }

  void Say(const absl::Status& failure, int rank, int64_t step) {
    v1::WorkerMessage message;
    v1::Failed& failed = *message.mutable_failed();
    failed.set_code(static_cast<int32_t>(failure.code()));
    failed.set_message(std::string(failure.message()));
    failed.set_rank(rank);
    failed.set_step(step);
    Say(message);
  }

  const WorkerProcessOptions& options_;
  std::unique_ptr<v1::Workers::StubInterface> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<Stream> stream_;
  EngineSetup setup_;
  ModelConfig config_;
  EngineLimits limits_;
  std::vector<LoadedRank> loaded_;
  absl::Time told_progress_;
  absl::Mutex saying_;  // held while a message is written
  absl::Mutex mutex_;   // for ranks_, which the heartbeat reads while it comes and goes
  std::unique_ptr<RankThreads> ranks_;
  absl::Notification stopping_;
  std::thread heartbeat_;
};

}  // namespace

absl::Status ServeAsWorker(const WorkerProcessOptions& options) { return WorkerLife(options).Run(); }

}  // namespace weft
