// The handlers of weft.v1.Inference.
#pragma once

#include <atomic>

#include "grpcpp/grpcpp.h"
#include "server/generation_service.h"
#include "server/grpc_call.h"
#include "weft/v1/inference.grpc.pb.h"

namespace weft {

// Owned by the GrpcServer. Called by gRPC's threads, which it leaves at once for those of `parts`.
class GrpcService final : public v1::Inference::CallbackService {
 public:
  explicit GrpcService(const GrpcParts& parts) : parts_(parts) {}

  // Null while the model is loaded.
  void Attach(GenerationService* service) { service_.store(service); }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context, const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;

 private:
  struct UnaryCall {
    absl::string_view method;
    grpc::CallbackServerContext* context;
    size_t message_bytes;
  };

  template <typename Work>
  grpc::ServerUnaryReactor* Run(const UnaryCall& unary, Work work);

  const GrpcParts parts_;
  std::atomic<GenerationService*> service_{nullptr};
};

}  // namespace weft
