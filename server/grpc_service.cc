#include "server/grpc_service.h"

#include <exception>
#include <utility>
#include <vector>

#include "boost/asio/post.hpp"
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

// Does `work(service)` on the server's threads once the caller has shown a key.
template <typename Work>
grpc::ServerUnaryReactor* GrpcService::Run(grpc::CallbackServerContext* context, Work work) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  boost::asio::post(threads_, [this, context, reactor, work = std::move(work)] {
    const auto answer = [&]() -> absl::Status {
      context->AddInitialMetadata("x-request-id", RequestIdOf(*context));
      RETURN_IF_ERROR(TenantOf(*context, keys_).status());
      ASSIGN_OR_RETURN(const GenerationService* const service, CheckLoaded(service_.load()));
      return work(*service);
    };
    absl::Status status;
    try {
      status = answer();
    } catch (const std::exception&) {  // out of memory, say; the server lives
      status = absl::InternalError("a handler threw");
    }
    reactor->Finish(FinishStatus(status, *context, metrics_));
  });
  return reactor;
}

grpc::ServerWriteReactor<v1::GenerateResponse>* GrpcService::Generate(grpc::CallbackServerContext* context,
                                                                      const v1::GenerateRequest* request) {
  return GrpcGenerateCall::Start({service_.load(), keys_, &metrics_, &threads_, write_timeout_}, context, request);
}

grpc::ServerUnaryReactor* GrpcService::Tokenize(grpc::CallbackServerContext* context,
                                                const v1::TokenizeRequest* request, v1::TokenizeResponse* response) {
  return Run(context, [=](const GenerationService& service) { return TokenizeFor(service, *request, *response); });
}

grpc::ServerUnaryReactor* GrpcService::Detokenize(grpc::CallbackServerContext* context,
                                                  const v1::DetokenizeRequest* request,
                                                  v1::DetokenizeResponse* response) {
  return Run(context, [=](const GenerationService& service) { return DetokenizeFor(service, *request, *response); });
}

grpc::ServerUnaryReactor* GrpcService::GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest*,
                                                v1::GetModelResponse* response) {
  return Run(context, [=](const GenerationService& service) {
    *response = ToProto(service.model());
    return absl::OkStatus();
  });
}

}  // namespace weft
