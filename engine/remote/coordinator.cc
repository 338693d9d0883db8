#include "engine/remote/coordinator.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "engine/remote/greetings.h"
#include "engine/remote/link_limits.h"
#include "engine/remote/step_messages.h"
#include "grpcpp/grpcpp.h"
#include "kernels/status_macros.h"
#include "weft/v1/worker.grpc.pb.h"

namespace weft {
namespace {

constexpr size_t kMaxWordBytes = 64 << 10;
constexpr size_t kMaxWords = 1 << 14;  // of a scope
constexpr absl::Duration kMaxLookup = absl::Minutes(10);
// How often a call that waits here sees whether its caller still does.
constexpr absl::Duration kLook = absl::Milliseconds(100);
constexpr absl::Duration kMaxGreeting = absl::Seconds(10);
// Each call has one: a worker's link and, while ranks meet, what each of them asks for.
constexpr int kMaxThreads = 2'048;

void SetLimits(grpc::ServerBuilder& builder) {
  builder.SetResourceQuota(grpc::ResourceQuota("coordinator").SetMaxThreads(kMaxThreads));
  builder.SetMaxReceiveMessageSize(kMaxWorkerMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kKeepaliveMs / 2);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
}

}  // namespace

class Coordinator::Service final : public v1::Workers::Service {
 public:
  explicit Service(const CoordinatorOptions& options) : options_(options) {}

  ~Service() override {
    {
      absl::MutexLock lock(&mutex_);
      closing_ = true;
    }
    if (server_ != nullptr) {
      server_->Shutdown(std::chrono::system_clock::now());
      server_->Wait();
    }
    if (directory_.empty()) return;
    unlink(absl::StrCat(directory_, "/workers").c_str());
    rmdir(directory_.c_str());
  }

  absl::Status Start() {
    RETURN_IF_ERROR(MakeDirectory());
    grpc::EnableDefaultHealthCheckService(false);  // a switch of the whole process, read when a server is built
    grpc::ServerBuilder builder;
    SetLimits(builder);
    builder.RegisterService(this);
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());  // whoever enters the directory is us
    if (!options_.address.empty()) {
      ASSIGN_OR_RETURN(const auto credentials, MutualTlsServer(options_.tls));
      builder.AddListeningPort(options_.address, credentials, &port_);
    }
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || (!options_.address.empty() && port_ == 0)) {
      return absl::InvalidArgumentError(absl::StrCat("coordinator: can't listen on '", options_.address,
                                                     "', or its certificate and key don't fit each other"));
    }
    return absl::OkStatus();
  }

  grpc::Status Join(grpc::ServerContext* context, WorkerSeat::Stream* stream) override {
    v1::WorkerMessage first;
    greetings_.Begin(*context);
    const bool is_read = stream->Read(&first);
    greetings_.End(*context);
    if (!is_read && !IsClosing()) return TurnAway(*context, grpc::DEADLINE_EXCEEDED, "it says nothing");
    if (!is_read) return grpc::Status::OK;
    if (!first.has_hello()) return TurnAway(*context, grpc::INVALID_ARGUMENT, "it doesn't say who it is");
    const v1::Hello& hello = first.hello();
    if (hello.protocol() != kWorkerProtocol || hello.version() != options_.version) {
      return TurnAway(
          *context, grpc::FAILED_PRECONDITION,
          absl::StrCat("it is version ", hello.version().substr(0, 64), ", the server is ", options_.version));
    }
    if (hello.token().empty() && hello.num_nodes() != options_.num_nodes) {
      return TurnAway(*context, grpc::FAILED_PRECONDITION,
                      absl::StrCat("it has --num-nodes ", hello.num_nodes(), ", the server ", options_.num_nodes));
    }
    const std::shared_ptr<WorkerSeat> seat = FindSeat(hello, *context);
    if (seat == nullptr && (context->IsCancelled() || IsClosing())) return {grpc::UNAVAILABLE, "the server stops"};
    if (seat == nullptr) {
      return TurnAway(*context, grpc::PERMISSION_DENIED, absl::StrCat("nobody expects ", Describe(hello)));
    }
    seat->Serve(hello, *context, *stream);
    return grpc::Status::OK;
  }

  grpc::Status Publish(grpc::ServerContext*, const v1::PublishRequest* request, v1::PublishResponse*) override {
    if (request->value().size() > kMaxWordBytes) return {grpc::INVALID_ARGUMENT, "the word is too long"};
    absl::MutexLock lock(&mutex_);
    const auto scope = words_.find(request->scope());
    if (scope == words_.end()) return {grpc::ABORTED, "the group that was to meet has ended"};
    if (scope->second.size() >= kMaxWords) return {grpc::RESOURCE_EXHAUSTED, "too many words"};
    if (!scope->second.emplace(request->key(), request->value()).second) {
      return {grpc::ALREADY_EXISTS, "the word is there already"};
    }
    return grpc::Status::OK;
  }

  grpc::Status Lookup(grpc::ServerContext* context, const v1::LookupRequest* request,
                      v1::LookupResponse* response) override {
    const absl::Duration asked = absl::Seconds(request->timeout_seconds());
    const absl::Time deadline = absl::Now() + std::min(asked, kMaxLookup);
    absl::MutexLock lock(&mutex_);
    const auto is_there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      const auto scope = words_.find(request->scope());
      return closing_ || scope == words_.end() || scope->second.contains(request->key());
    };
    while (!mutex_.AwaitWithTimeout(absl::Condition(&is_there), kLook)) {
      if (context->IsCancelled()) return grpc::Status::CANCELLED;
      if (absl::Now() >= deadline) return {grpc::NOT_FOUND, "nobody has said it in time"};
    }
    const auto scope = words_.find(request->scope());
    if (closing_ || scope == words_.end()) return {grpc::ABORTED, "the group that was to meet has ended"};
    response->set_value(scope->second.at(request->key()));
    return grpc::Status::OK;
  }

  void Expect(const std::string& token, int node_rank, std::shared_ptr<WorkerSeat> seat) {
    absl::MutexLock lock(&mutex_);
    if (token.empty()) {
      by_node_[node_rank].push_back(std::move(seat));
    } else {
      by_token_[token] = std::move(seat);
    }
  }

  void Forget(const std::shared_ptr<WorkerSeat>& seat) {
    absl::MutexLock lock(&mutex_);
    absl::erase_if(by_token_, [&seat](const auto& entry) { return entry.second == seat; });
    for (auto& [node, seats] : by_node_) std::erase(seats, seat);
  }

  void OpenScope(const std::string& scope) {
    absl::MutexLock lock(&mutex_);
    words_[scope];
  }
  void CloseScope(const std::string& scope) {
    absl::MutexLock lock(&mutex_);
    words_.erase(scope);
  }

  const std::string& address() const { return address_; }
  int port() const { return port_; }

 private:
  // mkdtemp makes it for its owner alone.
  absl::Status MakeDirectory() {
    std::string path = absl::StrCat(options_.runtime_dir, "/weft-XXXXXX");
    if (options_.runtime_dir.size() > kMaxRuntimeDirBytes) {
      return absl::InvalidArgumentError(absl::StrCat("workers: '", path, "' is too long for a socket"));
    }
    if (mkdtemp(path.data()) == nullptr) {
      return absl::ErrnoToStatus(errno,
                                 absl::StrCat("workers: can't make a directory in '", options_.runtime_dir, "'"));
    }
    directory_ = path;
    address_ = absl::StrCat("unix:", path, "/workers");
    return absl::OkStatus();
  }

  static std::string Describe(const v1::Hello& hello) {
    if (!hello.token().empty()) return absl::StrCat("process ", hello.process_id(), " with its token");
    return absl::StrCat("a worker of node ", hello.node_rank());
  }

  grpc::Status TurnAway(const grpc::ServerContext& context, grpc::StatusCode code, const std::string& why) {
    options_.log(absl::StrCat("a worker from ", context.peer(), " is turned away: ", why));
    return {code, why};
  }

  bool IsClosing() {
    absl::MutexLock lock(&mutex_);
    return closing_;
  }

  // Takes the seat. A host's worker may come before it is needed, and waits here.
  std::shared_ptr<WorkerSeat> FindSeat(const v1::Hello& hello, const grpc::ServerContext& context) {
    absl::MutexLock lock(&mutex_);
    if (!hello.token().empty()) {
      auto seat = by_token_.extract(hello.token());
      return seat.empty() ? nullptr : std::move(seat.mapped());
    }
    const int node = hello.node_rank();
    if (node < 1 || node >= options_.num_nodes) return nullptr;
    std::deque<std::shared_ptr<WorkerSeat>>& seats = by_node_[node];
    const auto is_wanted = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closing_ || !seats.empty(); };
    while (!mutex_.AwaitWithTimeout(absl::Condition(&is_wanted), kLook)) {
      if (context.IsCancelled()) return nullptr;
    }
    if (closing_ || context.IsCancelled()) return nullptr;  // it is for one that lives
    std::shared_ptr<WorkerSeat> seat = std::move(seats.front());
    seats.pop_front();
    return seat;
  }

  const CoordinatorOptions options_;
  std::string directory_;
  std::string address_;
  int port_ = 0;
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<WorkerSeat>> by_token_ ABSL_GUARDED_BY(mutex_);
  std::map<int, std::deque<std::shared_ptr<WorkerSeat>>> by_node_
      ABSL_GUARDED_BY(mutex_);  // entries stay where they are
  absl::flat_hash_map<std::string, absl::flat_hash_map<std::string, std::string>> words_ ABSL_GUARDED_BY(mutex_);
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  Greetings greetings_{kMaxGreeting};
  std::unique_ptr<grpc::Server> server_;
};

Coordinator::Coordinator(std::unique_ptr<Service> service) : service_(std::move(service)) {}
Coordinator::~Coordinator() = default;

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(const CoordinatorOptions& options) {
  auto service = std::make_unique<Service>(options);
  RETURN_IF_ERROR(service->Start());
  return std::unique_ptr<Coordinator>(new Coordinator(std::move(service)));
}

const std::string& Coordinator::local_address() const { return service_->address(); }
int Coordinator::port() const { return service_->port(); }

void Coordinator::Expect(const std::string& token, std::shared_ptr<WorkerSeat> seat) {
  service_->Expect(token, 0, std::move(seat));
}

void Coordinator::ExpectNode(int node_rank, std::shared_ptr<WorkerSeat> seat) {
  service_->Expect("", node_rank, std::move(seat));
}

void Coordinator::Forget(const std::shared_ptr<WorkerSeat>& seat) { service_->Forget(seat); }
void Coordinator::OpenScope(const std::string& scope) { service_->OpenScope(scope); }
void Coordinator::CloseScope(const std::string& scope) { service_->CloseScope(scope); }

}  // namespace weft
