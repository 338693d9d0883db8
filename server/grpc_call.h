// What every gRPC call does before and after its own work: who asks, under which id, and how it ends.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"
#include "server/auth.h"
#include "server/generation_service.h"
#include "server/metrics.h"

namespace weft {

// The client's id where it sent a sound one, else a new one.
std::string RequestIdOf(const grpc::CallbackServerContext& context);

// The tenant who calls. `keys` null: "default", whoever it is. Errors: Unauthenticated, invalid_api_key;
// DeadlineExceeded for a call that is too late before it began.
absl::StatusOr<std::string> TenantOf(const grpc::CallbackServerContext& context, const KeyStore* keys);

// Error for null: Unavailable, not_ready.
absl::StatusOr<GenerationService*> CheckLoaded(GenerationService* service);

// The status to finish a call with. Adds code word, field and waiting time to the trailing metadata, and counts the
// call.
grpc::Status FinishStatus(const absl::Status& status, grpc::CallbackServerContext& context, Metrics& metrics);

}  // namespace weft
