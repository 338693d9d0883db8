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
  return asked > 0 ? asked : 4 * config.engine.max_num_seqs;
}

std::string Seconds(absl::Duration duration) { return absl::StrFormat("%.3f s", absl::ToDoubleSeconds(duration)); }

}  // namespace

Server::Server(const Config& config)
    : config_(config),
      queue_({.max_requests = MaxQueuedRequests(config)}),
      signals_(loop_, SIGTERM, SIGINT),
      last_resort_(loop_) {}

Server::~Server() {
  queue_.Close();  // ends the replica, and so its watcher
  for (std::thread* thread : {&loader_, &watcher_, &drainer_}) {
    if (thread->joinable()) thread->join();
  }
  metrics_.SetStatsSource(nullptr, nullptr);
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
  RETURN_IF_ERROR(LoadKeys());
  const KeyStore* const keys = keys_.has_value() ? &*keys_ : nullptr;
  HttpDeps deps{
      .metrics = metrics_, .request_bytes = request_bytes_, .health = [this] { return health_.Get(); }, .keys = keys};
  ASSIGN_OR_RETURN(http_, HttpServer::Start(config_.http, std::move(deps)));
  ASSIGN_OR_RETURN(grpc_,
                   GrpcServer::Start(config_, {.metrics = metrics_, .request_bytes = request_bytes_, .keys = keys}));
  return absl::OkStatus();
}

absl::Status Server::LoadKeys() {
  if (config_.auth.api_keys_file.empty()) return absl::OkStatus();
  absl::StatusOr<KeyStore> keys = KeyStore::Load(config_.auth.api_keys_file);
  if (!keys.ok()) return absl::InvalidArgumentError(absl::StrCat("api-keys: ", keys.status().message()));
  keys_ = *std::move(keys);
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
    *model = LoadServedModel(config_, progress);
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

void Server::StartServing() {
  replica_ = std::make_unique<Replica>(std::move(model_->engine), queue_, clock_);
  replica_->Start();
  watcher_ = std::thread([this] {
    replica_->Join();
    boost::asio::post(loop_, [this] { OnReplicaEnded(); });
  });
  metrics_.SetStatsSource([this] { return replica_->stats(); }, [this] { return queue_.size(); });
  GenerationServiceOptions options{.model = model_->info,
                                   .defaults = model_->defaults,
                                   .eos_token_ids = model_->eos_token_ids,
                                   .prefix_cache = config_.engine.prefix_cache,
                                   .block_size = config_.engine.block_size,
                                   .max_queued_requests = MaxQueuedRequests(config_)};
  const ChatTemplates* const templates = model_->chat_templates.has_value() ? &*model_->chat_templates : nullptr;
  service_ = std::make_unique<GenerationService>(
      std::move(options), GenerationServiceParts{*model_->tokenizer, templates, queue_, metrics_, clock_});
  http_->AttachService(*service_);
  grpc_->AttachService(*service_);
  health_.Set({Health::kReady, "ready", 1});
}

void Server::WaitForSignal() {
  signals_.async_wait([this](const boost::system::error_code& error, int) {
    if (error) return;
    OnSignal();
    WaitForSignal();
  });
}

void Server::OnSignal() {
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

void Server::OnReplicaEnded() {
  const absl::Status status = replica_->status();
  if (status.ok()) return EndWith(kExitOk);  // the queue was closed, by Drain
  spdlog::critical("the engine died: {}", std::string(status.message()));
  health_.Set({Health::kDead, "the engine died", 0});
  service_->StopAccepting();
  grpc_->BeginDrain();
  queue_.Close();  // first, so that nothing comes in behind those that are cancelled
  service_->CancelAll(ApiError(absl::StatusCode::kUnavailable, "replica_lost", "", "the engine died"));
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
