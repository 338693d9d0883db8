// One Generate call: pulls deltas from a Generation and writes them, one message under way at a time.
#pragma once

#include <atomic>
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
// tokens become text on the server's own threads, never on the replica's or on gRPC's. Only the prompt is tokenized
// elsewhere, because that may take long. While a message is under way nothing is taken from the generation: a slow
// reader leaves token ids there, not text here.
//
// Owns itself from Start until gRPC is done with it.
class GrpcGenerateCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                               public std::enable_shared_from_this<GrpcGenerateCall> {
 public:
  // `service` null: not loaded yet. `context` and `message` live until gRPC is done with the call.
  static grpc::ServerWriteReactor<v1::GenerateResponse>* Start(const GrpcParts& parts, GenerationService* service,
                                                               grpc::CallbackServerContext* context,
                                                               const v1::GenerateRequest* message);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GrpcGenerateCall(const GrpcParts& parts, GenerationService* service, grpc::CallbackServerContext* context);

  template <typename Handler>
  void Guard(const Handler& handler);  // handler(*this); an exception ends the call
  template <typename Handler>
  void Post(Handler handler);  // the same, on the strand

  // All but Prepare on the strand.
  void Begin(const v1::GenerateRequest& message);
  absl::Status Identify();
  void StartPreparing(const v1::GenerateRequest& message);
  absl::StatusOr<std::unique_ptr<Generation>> Prepare(v1::GenerateRequest message);
  void OnPrepared(absl::StatusOr<std::unique_ptr<Generation>> generation);
  void Refuse(const absl::Status& status);
  void Pump();
  void Take();
  void WriteNext();
  void WatchWrite();
  void End(const absl::Status& status);

  const GrpcParts parts_;
  GenerationService* const service_;
  grpc::CallbackServerContext* const context_;
  boost::asio::strand<boost::asio::thread_pool::executor_type> strand_;
  std::shared_ptr<GrpcGenerateCall> self_;  // itself, until OnDone
  MemoryBudget::Hold hold_;                 // the message's bytes

  GrpcCall call_;                          // set before Prepare runs
  std::optional<QueuePlaces> place_;       // in the queue, until Prepare runs
  bool is_preparing_ = false;              // context and message are in use elsewhere, so the call may not end yet
  std::atomic<bool> is_cancelled_{false};  // seen by Prepare, which then has nothing to do

  std::unique_ptr<Generation> generation_;
  std::deque<v1::GenerateResponse> ready_;  // of one Take
  v1::GenerateResponse writing_;            // stays put while gRPC reads it
  bool is_writing_ = false;
  int64_t num_writes_ = 0;  // begun
  boost::asio::steady_timer write_timer_;
  bool has_ended_ = false;
  std::optional<absl::Status> end_;  // how the call ends once everything is written
};

}  // namespace weft
