// gRPC: weft.v1.Inference, grpc.health.v1 and reflection; the server, for whoever starts and stops it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/authenticator.h"
#include "server/config.h"
#include "server/generation_service.h"
#include "server/memory_budget.h"
#include "server/metrics.h"

namespace weft {

// What the server asks of the rest of the process. All of it outlives the server.
struct GrpcDeps {
  Metrics& metrics;
  MemoryBudget& request_bytes;
  const Authenticator* auth = nullptr;  // null: nobody shows who they are
};

// Owns its listener, its threads and its calls. Thread-safe.
//
// The listener can be open before there is a model: until AttachService, calls end with UNAVAILABLE, `not_ready`, and
// health says NOT_SERVING.
class GrpcServer {
 public:
  // Listens on http.host, with http's certificate if it has one. Errors: InvalidArgument for an address or certificate
  // that can't be used, or a port that is taken.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const Config& config, const GrpcDeps& deps);
  ~GrpcServer();  // Stop(zero)

  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  int port() const;

  // Once; from here on health says SERVING. `service` must live until Stop has returned.
  void AttachService(GenerationService& service);

  // What health says from now on. That new work is refused is the service's to decide.
  void SetHealthy(bool healthy);

  // Waits up to `grace` for calls under way, then cancels them. Returns when no thread of the server runs any more. May
  // be called again.
  void Stop(absl::Duration grace);

 private:
  class Impl;
  explicit GrpcServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
