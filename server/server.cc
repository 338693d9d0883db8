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
      last_resort_(loop_) {}

Server::~Server() {
  queue_.Close();  // ends the replicas, and so their watchers
  for (std::thread* thread : {&loader_, &drainer_}) {
    if (thread->joinable()) thread->join();
  }
  for (std::thread& watcher : watchers_) watcher.join();
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
  const LoadingProgress progress = [this](absl::string_view phase, absl::Duration took, double done) {
    spdlog::info("loaded {} in {}", std::string(phase), Seconds(took));
    metrics_.SetStartupSeconds(phase, took);
    health_.Set({Health::kLoading, absl::StrCat("loaded ", phase), done});
  };
  auto model = std::make_shared<absl::StatusOr<ServedModel>>(absl::UnknownError(""));  // for the handler
  try {
    *model = load_(config_, progress);
  } catch (const std::exception&) {  // a file system that throws; memory that the files' own numbers ask for
    *model = absl::ResourceExhaustedError("model: loading it ran out of memory");
  }
  boost::asio::post(loop_, [this, model] { OnLoaded(std::move(*model)); });
}

void Server::OnLoaded(absl::StatusOr<ServedModel> model) {
  if (!model.ok()) {
    spdlog::error("{}", std::string(model.status().message()));
    return EndWith(kExitConfig);
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

void Server::StartReplicas(std::vector<std::unique_ptr<Engine>> engines) {
  for (std::unique_ptr<Engine>& engine : engines) {
    const auto id = static_cast<int>(replicas_.size());
    replicas_.push_back(
        std::make_unique<Replica>(id, std::move(engine), SchedulerOptionsFor(config_), dispatcher_, clock_));
  }
  metrics_.SetStatsSource([this] { return Snapshot(); });
  num_running_replicas_ = replicas_.size();
  for (size_t id = 0; id < replicas_.size(); ++id) {
    replicas_[id]->Start();
    watchers_.emplace_back([this, id] {
      replicas_[id]->Join();
      boost::asio::post(loop_, [this, id] { OnReplicaEnded(id); });
    });
  }
}

SchedulerSnapshot Server::Snapshot() const {
  SchedulerSnapshot snapshot{.replicas = {}, .queue = queue_.stats()};
  for (const auto& replica : replicas_) snapshot.replicas.push_back({replica->stats(), replica->status().ok()});
  return snapshot;
}

void Server::StartServing() {
  StartReplicas(std::move(model_->engines));
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
  last_resort_.expires_after(kLastResort);
  last_resort_.async_wait([](const boost::system::error_code& error) {
    if (!error) _exit(kExitOk);
  });
}

void Server::BeginDrain() {
  draining_ = true;
  health_.Set({Health::kDraining, "draining", 1});
  service_->StopAccepting();
  http_->BeginDrain();
  grpc_->BeginDrain();
  spdlog::info("draining: {} requests under way", service_->num_active());
  drainer_ = std::thread([this] { Drain(); });
}

void Server::Drain() {
  if (!service_->WaitUntilIdle(config_.drain_timeout)) {
    spdlog::warn("drain timeout: {} requests are cut off", service_->num_active());
    service_->CancelAll();
  }
  StopSockets();
  queue_.Close();
}

void Server::OnReplicaEnded(size_t id) {
  --num_running_replicas_;
  const absl::Status status = replicas_[id]->status();
  if (!status.ok()) return OnReplicaDied(id, status);
  if (num_running_replicas_ == 0) EndWith(kExitOk);  // the queue was closed, by Drain
}

void Server::OnReplicaDied(size_t id, const absl::Status& status) {
  ++num_dead_replicas_;
  spdlog::critical("the engine of replica {} died: {}; {} of {} replicas live", id, std::string(status.message()),
                   num_running_replicas_, replicas_.size());
  if (num_running_replicas_ == 0) return OnLastReplicaDied();
  // What it ran went back to the queue before its thread ended.
  queue_.SetNumReplicas(static_cast<int>(num_running_replicas_));
  if (draining_) return;
  health_.Set({.health = Health::kReady,
               .detail = absl::StrCat(num_dead_replicas_, " of ", replicas_.size(), " replicas died"),
               .progress = 1,
               .is_impaired = true});
}

void Server::OnLastReplicaDied() {
  health_.Set({Health::kDead, "the engine died", 0});
  service_->StopAccepting();
  grpc_->BeginDrain();
  // Closes too, so that nothing comes in behind those that end here.
  queue_.Fail(ApiError(absl::StatusCode::kUnavailable, "replica_lost", "", "the engine died"));
  EndWith(kExitEngineDied);
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
