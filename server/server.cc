#include "server/server.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "boost/asio/post.hpp"
#include "kernels/status_macros.h"
#include "server/api_error.h"
#include "server/exit_status.h"
#include "server/host_port.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

// For answers that are complete to reach their readers.
constexpr absl::Duration kFlushTime = absl::Seconds(5);
// How late a request may hear that its deadline has passed while no replica is up.
constexpr std::chrono::milliseconds kOverdueInterval{20};
// For engines to end their steps, when nobody waits for what they compute.
constexpr std::chrono::seconds kEnginesEnd{30};
// After a second signal, for streams to say that they end.
constexpr std::chrono::seconds kLastResort{2};

int MaxQueuedRequests(const Config& config) {
  const int asked = config.queue.max_queued_requests;
  return asked > 0 ? asked : 4 * config.engine.max_num_seqs * config.engine.replicas;
}

absl::Duration OrInfinite(absl::Duration bound) {
  return bound > absl::ZeroDuration() ? bound : absl::InfiniteDuration();
}

FairQueueOptions QueueOptionsFor(const Config& config) {
  FairQueueOptions options;
  options.max_requests = MaxQueuedRequests(config);
  options.leave_room = config.auth.trust_gateway || !config.auth.api_keys_file.empty();
  options.max_time_to_first_token = OrInfinite(config.queue.max_ttft);
  return options;
}

SchedulerOptions SchedulerOptionsFor(const Config& config) {
  return {.max_prefill_share = config.engine.max_prefill_share,
          .max_itl = OrInfinite(config.engine.max_itl),
          .tell_cache_changes = config.engine.replicas > 1};
}

std::string Seconds(absl::Duration duration) { return absl::StrFormat("%.3f s", absl::ToDoubleSeconds(duration)); }

}  // namespace

Server::Server(const Config& config, ModelLoader load)
    : config_(config),
      load_(std::move(load)),
      auth_(config.auth.trust_gateway),
      queue_(QueueOptionsFor(config), clock_),
      dispatcher_({.num_replicas = config.engine.replicas, .max_affinity_wait = config.queue.affinity_wait}, queue_,
                  clock_),
      files_(config.auth.api_keys_file, config.queue.tenants_file, auth_, queue_, metrics_),
      signals_(loop_, SIGTERM, SIGINT, SIGHUP),
      last_resort_(loop_, std::chrono::steady_clock::time_point::max()),
      overdue_timer_(loop_) {}

Server::~Server() {
  for (std::thread* thread : {&loader_, &drainer_}) {
    if (thread->joinable()) thread->join();
  }
  metrics_.SetStatsSource(nullptr);
}

int Server::Run() {
  if (absl::Status status = OpenSockets(); !status.ok()) {
    spdlog::error("{}", std::string(status.message()));
    return kExitConfig;
  }
  WaitForSignal();
  loader_ = std::thread([this] { Load(); });
  const auto keep_running = boost::asio::make_work_guard(loop_);
  loop_.run();
  StopSockets();
  return exit_status_;
}

// Before the model is loaded, so that probes see how far it is, and a port that is taken is found at once.
absl::Status Server::OpenSockets() {
  RETURN_IF_ERROR(files_.Load());
  HttpDeps deps{
      .metrics = metrics_, .request_bytes = request_bytes_, .health = [this] { return health_.Get(); }, .auth = &auth_};
  ASSIGN_OR_RETURN(http_, HttpServer::Start(config_.http, std::move(deps)));
  ASSIGN_OR_RETURN(grpc_,
                   GrpcServer::Start(config_, {.metrics = metrics_, .request_bytes = request_bytes_, .auth = &auth_}));
  return absl::OkStatus();
}

void Server::Load() {
  LoadingReporter reporter(health_, metrics_);
  const LoadingProgress progress = reporter.Progress();
  auto model = std::make_shared<absl::StatusOr<ServedModel>>(absl::UnknownError(""));  // for the handler
  try {
    *model = load_(config_, progress);
  } catch (const std::exception&) {  // a file system that throws; memory that the files' own numbers ask for
    *model = absl::ResourceExhaustedError("model: loading it ran out of memory");
  }
  boost::asio::post(loop_, [this, model] { OnLoaded(std::move(*model)); });
}

// A worker that was lost or didn't come is no fault of the settings: whoever starts servers may try again.
bool Server::MayPass(const absl::Status& failure) {
  return absl::IsUnavailable(failure) || absl::IsDeadlineExceeded(failure) || absl::IsInternal(failure) ||
         absl::IsAborted(failure);
}

void Server::OnLoaded(absl::StatusOr<ServedModel> model) {
  if (!model.ok()) {
    spdlog::error("{}", std::string(model.status().message()));
    return EndWith(MayPass(model.status()) ? kExitEngineDied : kExitConfig);
  }
  model_.emplace(*std::move(model));
  for (const std::string& warning : model_->warnings) spdlog::warn("{}", warning);
  StartServing();
  const absl::Duration took = clock_.Now() - start_;
  metrics_.SetStartupSeconds("total", took);
  spdlog::info("serving {} with {} tokens of context, ready in {}", model_->info.names.front(),
               model_->info.max_model_len, Seconds(took));
  std::printf("weft ready http=%s grpc=%s\n", HostPort(config_.http.host, http_->port()).c_str(),
              HostPort(config_.http.host, grpc_->port()).c_str());
  std::fflush(stdout);
}

void Server::StartReplicas() {
  replicas_ = std::make_unique<ReplicaSet>(
      std::move(model_->engines), SchedulerOptionsFor(config_), config_.engine.restarts,
      ReplicaSet::Parts{*model_->engine_source, dispatcher_, clock_}, [this](const ReplicaSet::Change& change) {
        boost::asio::post(loop_, [this, change] { OnReplicaChanged(change); });
      });
  metrics_.SetStatsSource(
      [this] { return SchedulerSnapshot{.replicas = replicas_->Snapshot(), .queue = queue_.stats()}; });
}

void Server::StartServing() {
  StartReplicas();
  GenerationServiceOptions options{.model = model_->info,
                                   .defaults = model_->defaults,
                                   .eos_token_ids = model_->eos_token_ids,
                                   .prefix_cache = config_.engine.prefix_cache,
                                   .block_size = config_.engine.block_size};
  const ChatTemplates* const templates = model_->chat_templates.has_value() ? &*model_->chat_templates : nullptr;
  service_ = std::make_unique<GenerationService>(
      std::move(options), GenerationServiceParts{*model_->tokenizer, templates, queue_, metrics_, clock_});
  http_->AttachService(*service_);
  grpc_->AttachService(*service_);
  health_.Set({Health::kReady, "ready", 1});
}

void Server::WaitForSignal() {
  signals_.async_wait([this](const boost::system::error_code& error, int signal) {
    if (error) return;
    OnSignal(signal);
    WaitForSignal();
  });
}

void Server::OnSignal(int signal) {
  if (signal == SIGHUP) return files_.Reload();
  OnStopSignal();
}

void Server::OnStopSignal() {
  if (service_ == nullptr) {
    // Nothing was promised to anybody yet, and loading can't be interrupted.
    spdlog::info("stopped while loading");
    _exit(kExitOk);
  }
  if (!draining_) return BeginDrain();
  spdlog::warn("second signal: streams are cut off");
  service_->CancelAll();
  ExitAfter(kLastResort, kExitOk);
}

// For an end that may hang; whichever comes first.
void Server::ExitAfter(std::chrono::seconds time, int exit_status) {
  const auto at = std::chrono::steady_clock::now() + time;
  if (last_resort_.expiry() <= at) return;
  last_resort_.expires_at(at);
  last_resort_.async_wait([exit_status](const boost::system::error_code& error) {
    if (error) return;
    spdlog::warn("something doesn't end: the process does");
    _exit(exit_status);
  });
}

void Server::BeginDrain() {
  draining_ = true;
  health_.Set({Health::kDraining, "draining", 1});
  service_->StopAccepting();
  http_->BeginDrain();
  grpc_->SetHealthy(false);
  spdlog::info("draining: {} requests under way", service_->num_active());
  drainer_ = std::thread([this] { Drain(); });
}

void Server::Drain() {
  if (!service_->WaitUntilIdle(config_.drain_timeout)) {
    spdlog::warn("drain timeout: {} requests are cut off", service_->num_active());
    service_->CancelAll();
  }
  StopSockets();
  const bool all_down = replicas_->NumIn(ReplicaState::kDown) == static_cast<int>(replicas_->size());
  // A thread that computes for ever can't be ended, but for with the process.
  boost::asio::post(loop_, [this] { ExitAfter(kEnginesEnd, kExitEngineDied); });
  replicas_->End();
  boost::asio::post(loop_, [this, all_down] { EndWith(all_down ? kExitEngineDied : kExitOk); });
}

void Server::OnReplicaChanged(const ReplicaSet::Change& change) {
  const int num_up = replicas_->NumIn(ReplicaState::kUp);
  const int num_down = replicas_->NumIn(ReplicaState::kDown);
  const auto num_replicas = static_cast<int>(replicas_->size());
  const std::string why(change.why.message());
  switch (change.state) {
    case ReplicaState::kUp:
      spdlog::info("replica {} is up again; {} of {} are", change.replica, num_up, num_replicas);
      break;
    case ReplicaState::kRestarting:
      spdlog::error("the engine of replica {} died, and is started again: {}; {} of {} replicas are up", change.replica,
                    why, num_up, num_replicas);
      break;
    case ReplicaState::kDown:
      spdlog::critical("the engine of replica {} died {} times in ten minutes, and stays down: {}; {} of {} are up",
                       change.replica, config_.engine.restarts.limit, why, num_up, num_replicas);
      break;
  }
  if (num_down == num_replicas) return OnAllReplicasDown();
  if (num_up == 0) EndOverdueRequests();
  if (draining_) return;
  const int num_restarting = num_replicas - num_up - num_down;
  HealthState state{.health = num_up > 0 ? Health::kReady : Health::kRecovering,
                    .detail = num_up < num_replicas
                                  ? absl::StrCat(num_up, " of ", num_replicas, " replicas are up, ", num_restarting,
                                                 " are being started again, ", num_down, " died too often")
                                  : "ready",
                    .progress = 1,
                    .is_impaired = num_up < num_replicas};
  grpc_->SetHealthy(num_up > 0);
  health_.Set(std::move(state));
}

void Server::OnAllReplicasDown() {
  const std::string detail = absl::StrCat("crash loop: every replica died ", config_.engine.restarts.limit,
                                          " times in ten minutes, and is not started again");
  health_.Set({Health::kDead, detail, 0});
  const absl::Status lost = ApiError(absl::StatusCode::kUnavailable, "replica_lost", "", "the engine died");
  service_->StopAccepting(lost);
  grpc_->SetHealthy(false);
  // Closes too, so that nothing comes in behind those that end here.
  queue_.Fail(lost);
}

// While no replica is up, nobody pulls, which else ends requests whose deadline has passed.
void Server::EndOverdueRequests() {
  queue_.Pull([](const Request&) { return Verdict::kBlocked; });
  overdue_timer_.expires_after(kOverdueInterval);
  overdue_timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error && replicas_->NumIn(ReplicaState::kUp) == 0) EndOverdueRequests();
  });
}

void Server::StopSockets() {
  absl::MutexLock lock(&stopping_);
  if (http_ != nullptr) http_->Stop(kFlushTime);
  if (grpc_ != nullptr) grpc_->Stop(kFlushTime);
}

void Server::EndWith(int exit_status) {
  exit_status_ = exit_status;
  loop_.stop();
}

}  // namespace weft
