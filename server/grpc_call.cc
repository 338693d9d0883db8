#include "server/grpc_call.h"

#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "server/api_error.h"
#include "server/random_id.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";
constexpr absl::Duration kLoadingRetry = absl::Seconds(2);

std::optional<absl::string_view> ClientMetadata(const grpc::CallbackServerContext& context, const char* key) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(key);
  if (found == metadata.end()) return std::nullopt;
  return absl::string_view(found->second.data(), found->second.size());
}

std::vector<absl::string_view> AllMetadata(const grpc::CallbackServerContext& context, absl::string_view key) {
  std::vector<absl::string_view> values;
  const auto [begin, end] = context.client_metadata().equal_range(grpc::string_ref(key.data(), key.size()));
  for (auto it = begin; it != end; ++it) values.emplace_back(it->second.data(), it->second.size());
  return values;
}

}  // namespace

GrpcCall BeginCall(absl::string_view method, grpc::CallbackServerContext& context) {
  GrpcCall call{.method = method,
                .request_id = RequestId(ClientMetadata(context, kRequestIdKey).value_or("")),
                .begin = absl::Now()};
  context.AddInitialMetadata(kRequestIdKey, call.request_id);
  return call;
}

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  return absl::FromChrono(context.deadline());  // the clock's last moment, in some centuries, where there is none
}

absl::StatusOr<std::string> TenantOf(const grpc::CallbackServerContext& context, const Authenticator* auth) {
  if (DeadlineOf(context) <= absl::Now()) return DeadlinePassed();
  if (auth == nullptr) return "default";
  return auth->TenantOf({AllMetadata(context, "authorization"), AllMetadata(context, kFairnessIdHeader)});
}

absl::StatusOr<GenerationService*> CheckLoaded(GenerationService* service) {
  if (service != nullptr) return service;
  return WithRetryAfter(ApiError(absl::StatusCode::kUnavailable, "not_ready", "", "the model is being loaded"),
                        kLoadingRetry);
}

grpc::Status FinishCall(const absl::Status& status, const GrpcCall& call, grpc::CallbackServerContext& context,
                        Metrics& metrics) {
  metrics.CountGrpcResponse(static_cast<int>(status.code()));
  spdlog::info("grpc id={} tenant={} method={} status={} prompt_tokens={} completion_tokens={} total_ms={:.1f}",
               call.request_id, call.tenant, std::string(call.method), absl::StatusCodeToString(status.code()),
               call.usage.prompt_tokens, call.usage.completion_tokens,
               absl::ToDoubleMilliseconds(absl::Now() - call.begin));
  if (status.ok()) return grpc::Status::OK;
  context.AddTrailingMetadata("weft-error-code", ErrorCode(status));
  const std::string param = ErrorParam(status);
  if (!param.empty()) context.AddTrailingMetadata("weft-error-param", param);
  if (const std::optional<absl::Duration> wait = RetryAfter(status)) {
    context.AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(absl::ToInt64Milliseconds(*wait)));
  }
  // What went wrong inside is for the log, not for clients.
  const bool internal = ErrorCode(status) == "internal_error";
  const std::string message = internal ? "internal error" : std::string(status.message());
  // Both number the canonical codes alike.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message);
}

}  // namespace weft
