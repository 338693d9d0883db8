// The server's end of the link to one worker process.
#pragma once

#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/grpcpp.h"
#include "weft/v1/worker.grpc.pb.h"

namespace weft {

// A seat is made when a worker is expected, taken when it joins, and left when its link ends. Thread-safe.
class WorkerSeat {
 public:
  using Stream = grpc::ServerReaderWriter<v1::EngineMessage, v1::WorkerMessage>;

  // Called on the link's thread, one call at a time. on_message: first with the worker's Hello. on_end: once, when the
  // link has ended for any reason.
  struct Handlers {
    std::function<void(const v1::WorkerMessage& message)> on_message;
    std::function<void()> on_end;
  };

  explicit WorkerSeat(Handlers handlers) : handlers_(std::move(handlers)) {}

  // Queues a message for the worker. False: the link has ended, or there is none yet.
  bool Send(const v1::EngineMessage& message);

  // Ends the link, also before there is one.
  void Cut();

  // No handler is called from now on; waits for one that is being called. Not from a handler.
  void DropHandlers();

  // The link's thread: serves the worker until its link ends.
  void Serve(const v1::Hello& hello, grpc::ServerContext& context, Stream& stream);

 private:
  absl::Mutex handling_;  // held while a handler runs; taken before mutex_
  Handlers handlers_ ABSL_GUARDED_BY(handling_);
  absl::Mutex mutex_;
  absl::Mutex sending_;  // held while a message is written; taken before mutex_
  grpc::ServerContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Stream* stream_ ABSL_GUARDED_BY(sending_) = nullptr;
  bool is_cut_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace weft
