#include "server/grpc_service.h"

#include <exception>
#include <utility>
#include <vector>

#include "kernels/status_macros.h"
#include "server/api_error.h"
#include "server/grpc_call.h"
#include "server/grpc_convert.h"
#include "server/grpc_generate_call.h"

namespace weft {
namespace {

absl::Status TokenizeFor(const GenerationService& service, const v1::TokenizeRequest& request,
                         v1::TokenizeResponse& response) {
  std::variant<std::string, ChatPrompt> prompt = request.text();
  if (request.prompt_case() == v1::TokenizeRequest::PROMPT_NOT_SET) {
    return BadRequest("missing_field", "prompt", "one of text and chat is required");
  }
  if (request.has_chat()) {
    ASSIGN_OR_RETURN(prompt, FromProto(request.chat()));
  }
  const bool add_special = request.has_add_special_tokens() ? request.add_special_tokens() : true;
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids, service.Tokenize(prompt, add_special));
  response.mutable_token_ids()->Add(ids.begin(), ids.end());
  response.set_max_model_len(service.model().max_model_len);
  return absl::OkStatus();
}

absl::Status DetokenizeFor(const GenerationService& service, const v1::DetokenizeRequest& request,
                           v1::DetokenizeResponse& response) {
  ASSIGN_OR_RETURN(*response.mutable_text(),
                   service.Detokenize({request.token_ids().begin(), request.token_ids().end()}));
  return absl::OkStatus();
}

}  // namespace

// Does `work(service)` on a thread of the server once the caller has shown a key.
template <typename Work>
grpc::ServerUnaryReactor* GrpcService::Run(const UnaryCall& unary, Work work) {
  grpc::CallbackServerContext* const context = unary.context;
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  GrpcCall call = BeginCall(unary.method, *context);
  MemoryBudget::Hold hold(parts_.deps.request_bytes);
  const auto admit = [&]() -> absl::StatusOr<GenerationService*> {
    ASSIGN_OR_RETURN(call.tenant, TenantOf(*context, parts_.deps.auth));
    if (!hold.Grow(static_cast<int64_t>(unary.message_bytes))) return Overloaded();
    return CheckLoaded(service_.load());
  };
  const absl::StatusOr<GenerationService*> service = admit();
  const auto finish = [this, context, reactor, call](const absl::Status& status) {
    reactor->Finish(FinishCall(status, call, *context, parts_.deps.metrics));
  };
  const auto refuse = [this, &finish](const absl::Status& status) {
    parts_.deps.metrics.CountRejected(ErrorCode(status));
    finish(status);
  };
  if (!service.ok()) {
    refuse(service.status());
    return reactor;
  }
  const bool posted = parts_.converting.TryPost([service = *service, work, finish, hold = std::move(hold)] {
    absl::Status status = absl::InternalError("a handler threw");
    try {
      status = work(*service);
    } catch (const std::exception&) {  // out of memory, say; the server lives
    }
    finish(status);
  });
  if (!posted) refuse(Overloaded());
  return reactor;
}

grpc::ServerWriteReactor<v1::GenerateResponse>* GrpcService::Generate(grpc::CallbackServerContext* context,
                                                                      const v1::GenerateRequest* request) {
  return GrpcGenerateCall::Start(parts_, service_.load(), context, request);
}

grpc::ServerUnaryReactor* GrpcService::Tokenize(grpc::CallbackServerContext* context,
                                                const v1::TokenizeRequest* request, v1::TokenizeResponse* response) {
  return Run({"Tokenize", context, request->ByteSizeLong()},
             [=](const GenerationService& service) { return TokenizeFor(service, *request, *response); });
}

grpc::ServerUnaryReactor* GrpcService::Detokenize(grpc::CallbackServerContext* context,
                                                  const v1::DetokenizeRequest* request,
                                                  v1::DetokenizeResponse* response) {
  return Run({"Detokenize", context, request->ByteSizeLong()},
             [=](const GenerationService& service) { return DetokenizeFor(service, *request, *response); });
}

grpc::ServerUnaryReactor* GrpcService::GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest*,
                                                v1::GetModelResponse* response) {
  return Run({"GetModel", context, 0}, [=](const GenerationService& service) {
    *response = ToProto(service.model());
    return absl::OkStatus();
  });
}

}  // namespace weft
