#include "server/grpc_server.h"

#include <chrono>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/thread_pool.hpp"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "kernels/status_macros.h"
#include "server/bounded_pool.h"
#include "server/front_end_limits.h"
#include "server/grpc_service.h"
#include "server/host_port.h"

namespace weft {
namespace {

constexpr char kServiceName[] = "weft.v1.Inference";

// A client that vanished is noticed within half a minute and ten seconds; gRPC's own default is two hours.
constexpr int kKeepaliveMs = 30'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
constexpr int kLeastPingIntervalMs = 10'000;  // clients that ping more often are cut off
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr size_t kMaxTransportBytes = size_t{256} << 20;  // of all connections' buffers
constexpr int kDeliveringThreads = 1;                     // detokenizing is cheap

absl::StatusOr<std::string> ReadPem(const std::string& path, absl::string_view setting) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file || text.str().empty()) return absl::InvalidArgumentError(absl::StrCat(setting, ": can't read the file"));
  return std::move(text).str();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeCredentials(const HttpOptions& options) {
  if (options.tls_cert_file.empty()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions tls;
  ASSIGN_OR_RETURN(std::string certificate, ReadPem(options.tls_cert_file, "tls-cert"));
  ASSIGN_OR_RETURN(std::string key, ReadPem(options.tls_key_file, "tls-key"));
  tls.pem_key_cert_pairs.push_back({std::move(key), std::move(certificate)});
  return grpc::SslServerCredentials(tls);
}

void SetLimits(const GrpcOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kLeastPingIntervalMs);
  // Two servers on one port would share its connections between them, unseen.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetResourceQuota(grpc::ResourceQuota("weft").Resize(kMaxTransportBytes));
}

}  // namespace

class GrpcServer::Impl {
 public:
  Impl(const Config& config, const GrpcDeps& deps)
      : service_({deps, delivering_, preparing_, converting_, config.http.write_timeout}) {}
  ~Impl() { Stop(absl::ZeroDuration()); }

  absl::Status Start(const Config& config) {
    // Both are switches of the whole process, read when a server is built.
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    ASSIGN_OR_RETURN(const auto credentials, MakeCredentials(config.http));
    grpc::ServerBuilder builder;
    SetLimits(config.grpc, builder);
    builder.AddListeningPort(HostPort(config.http.host, config.grpc.port), credentials, &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("grpc-port: can't listen on ", HostPort(config.http.host, config.grpc.port)));
    }
    SetHealth(false);
    return absl::OkStatus();
  }

  int port() const { return port_; }

  void Attach(GenerationService& service) {
    service_.Attach(&service);
    SetHealth(true);
  }

  void SetHealth(bool serving) {
    grpc::HealthCheckServiceInterface* const health = server_->GetHealthCheckService();
    health->SetServingStatus("", serving);
    health->SetServingStatus(kServiceName, serving);
  }

  void Stop(absl::Duration grace) {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(grace));
    server_->Wait();
    preparing_.Join();
    converting_.Join();
    delivering_.join();
    server_.reset();
  }

 private:
  boost::asio::thread_pool delivering_{kDeliveringThreads};
  BoundedPool preparing_{kPreparingThreads, kMaxPreparing};
  BoundedPool converting_{kConvertingThreads, kMaxPreparing};
  GrpcService service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

GrpcServer::GrpcServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GrpcServer::~GrpcServer() = default;

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const Config& config, const GrpcDeps& deps) {
  auto impl = std::make_unique<Impl>(config, deps);
  RETURN_IF_ERROR(impl->Start(config));
  return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(impl)));
}

int GrpcServer::port() const { return impl_->port(); }
void GrpcServer::AttachService(GenerationService& service) { impl_->Attach(service); }
void GrpcServer::SetHealthy(bool healthy) { impl_->SetHealth(healthy); }
void GrpcServer::Stop(absl::Duration grace) { impl_->Stop(grace); }

}  // namespace weft
