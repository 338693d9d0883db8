// HTTP/1.1 with the OpenAI API: the server, for whoever starts and stops it.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/authenticator.h"
#include "server/config.h"
#include "server/generation_service.h"
#include "server/health.h"
#include "server/memory_budget.h"
#include "server/metrics.h"

namespace weft {

// What the server asks of the rest of the process. All of it outlives the server.
struct HttpDeps {
  Metrics& metrics;
  MemoryBudget& request_bytes;
  std::function<HealthState()> health;  // called on HTTP threads, must not block
  const Authenticator* auth = nullptr;  // null: nobody shows who they are
};

// Owns its listener, its threads and its connections. Thread-safe.
//
// The listener can be open before there is a model: until AttachService, routes that need one answer 503 `not_ready`.
class HttpServer {
 public:
  // Errors: InvalidArgument for an address or certificate that can't be used, Unavailable when the port is taken.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpOptions& options, HttpDeps deps);
  ~HttpServer();  // Stop(zero)

  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;

  // Once. `service` must live until Stop has returned.
  void AttachService(GenerationService& service);

  // Goes on listening and serving, so that probes see why; each connection closes after its next answer. That new work
  // gets 503 is the service's to decide.
  void BeginDrain();

  // Closes the listener and idle connections, waits up to `grace` for answers under way, then cuts them off. Returns
  // when no thread of the server runs any more. May be called again.
  void Stop(absl::Duration grace);

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
