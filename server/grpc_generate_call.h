// One Generate call: pulls deltas from a Generation and writes them, one message under way at a time.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "boost/asio/steady_timer.hpp"
#include "boost/asio/strand.hpp"
#include "boost/asio/thread_pool.hpp"
#include "grpcpp/grpcpp.h"
#include "server/generation_service.h"
#include "server/grpc_call.h"
#include "weft/v1/inference.grpc.pb.h"

namespace weft {

// gRPC drives it through the reactor's callbacks, which only post to the strand; everything else happens there, so
// tokens become text on the server's own threads, never on the replica's or on gRPC's. While a message is under way
// nothing is taken from the generation: a slow reader leaves token ids there, not text here.
//
// Owns itself from Start until gRPC is done with it.
class GrpcGenerateCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                               public std::enable_shared_from_this<GrpcGenerateCall> {
 public:
  struct Deps {
    GenerationService* service;  // null: not loaded yet
    const KeyStore* keys;        // null: no key is asked for
    Metrics* metrics;
    boost::asio::thread_pool* threads;
    absl::Duration write_timeout;  // a reader that takes no message for so long is cut off
  };

  // `context` and `message` live until gRPC is done with the call.
  static grpc::ServerWriteReactor<v1::GenerateResponse>* Start(const Deps& deps, grpc::CallbackServerContext* context,
                                                               const v1::GenerateRequest* message);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GrpcGenerateCall(const Deps& deps, grpc::CallbackServerContext* context);

  template <typename Handler>
  void Guard(const Handler& handler);  // handler(*this); an exception ends the call
  template <typename Handler>
  void Post(Handler handler);  // the same, on the strand

  // All on the strand.
  void Begin(const v1::GenerateRequest& message);
  absl::Status Admit(const v1::GenerateRequest& message);
  void Pump();
  void Take();
  void WriteNext();
  void WatchWrite();
  void End(const absl::Status& status);

  const Deps deps_;
  grpc::CallbackServerContext* const context_;
  boost::asio::strand<boost::asio::thread_pool::executor_type> strand_;
  std::shared_ptr<GrpcGenerateCall> self_;  // itself, until OnDone

  std::unique_ptr<Generation> generation_;
  std::deque<v1::GenerateResponse> ready_;  // of one Take
  v1::GenerateResponse writing_;            // stays put while gRPC reads it
  bool is_writing_ = false;
  boost::asio::steady_timer write_timer_;
  bool has_ended_ = false;
  std::optional<absl::Status> end_;  // how the call ends once everything is written
};

}  // namespace weft
