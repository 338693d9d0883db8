// The handlers of weft.v1.Inference.
#pragma once

#include <atomic>

#include "absl/time/time.h"
#include "boost/asio/thread_pool.hpp"
#include "grpcpp/grpcpp.h"
#include "server/auth.h"
#include "server/generation_service.h"
#include "server/metrics.h"
#include "weft/v1/inference.grpc.pb.h"

namespace weft {

// Owned by the GrpcServer. Called by gRPC's threads, which it leaves at once: all work is done on `threads`.
class GrpcService final : public v1::Inference::CallbackService {
 public:
  // All outlive the service. `keys` null: no key is asked for.
  GrpcService(const KeyStore* keys, Metrics& metrics, boost::asio::thread_pool& threads, absl::Duration write_timeout)
      : keys_(keys), metrics_(metrics), threads_(threads), write_timeout_(write_timeout) {}

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
  template <typename Work>
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, Work work);

  const KeyStore* const keys_;
  Metrics& metrics_;
  boost::asio::thread_pool& threads_;
  const absl::Duration write_timeout_;
  std::atomic<GenerationService*> service_{nullptr};
};

}  // namespace weft
