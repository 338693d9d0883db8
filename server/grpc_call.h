// What every gRPC call does before and after its own work: who asks, under which id, and how it ends.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "boost/asio/thread_pool.hpp"
#include "grpcpp/grpcpp.h"
#include "server/authenticator.h"
#include "server/bounded_pool.h"
#include "server/generation_service.h"
#include "server/grpc_server.h"
#include "server/metrics.h"

namespace weft {

// What all calls of one server share. All of it outlives them.
struct GrpcParts {
  GrpcDeps deps;
  boost::asio::thread_pool& delivering;  // tokens into text into messages
  BoundedPool& preparing;                // parses and tokenizes what is to be generated
  BoundedPool& converting;               // serves the calls that generate nothing
  absl::Duration write_timeout;          // a reader that takes no message for so long is cut off
};

// One call, for its answer's metadata and the log's line.
struct GrpcCall {
  absl::string_view method;  // "Generate"
  std::string request_id;
  std::string tenant = "default";
  Usage usage;
  absl::Time begin;
};

// Sends back the request's id: the client's where it is safe, else a new one.
GrpcCall BeginCall(absl::string_view method, grpc::CallbackServerContext& context);

// When the client stops waiting.
absl::Time DeadlineOf(const grpc::CallbackServerContext& context);

// The tenant who calls, as `auth` has it; "default" where that is null. Further error: DeadlineExceeded, for a call
// that is too late before it began.
absl::StatusOr<std::string> TenantOf(const grpc::CallbackServerContext& context, const Authenticator* auth);

// Error for null: Unavailable, not_ready.
absl::StatusOr<GenerationService*> CheckLoaded(GenerationService* service);

// The status to finish a call with. Adds code word, field and waiting time to the trailing metadata, counts the call,
// and writes the log's line. No content of requests or answers goes there.
grpc::Status FinishCall(const absl::Status& status, const GrpcCall& call, grpc::CallbackServerContext& context,
                        Metrics& metrics);

}  // namespace weft
