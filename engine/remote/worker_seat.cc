#include "engine/remote/worker_seat.h"

#include <utility>

namespace weft {

bool WorkerSeat::Send(const v1::EngineMessage& message) {
  absl::MutexLock lock(&sending_);
  return stream_ != nullptr && stream_->Write(message);
}

// Takes no lock that is held while a message is written: it ends just that.
void WorkerSeat::Cut() {
  absl::MutexLock lock(&mutex_);
  is_cut_ = true;
  if (context_ != nullptr) context_->TryCancel();
}

void WorkerSeat::DropHandlers() {
  absl::MutexLock lock(&handling_);
  handlers_ = {};
}

void WorkerSeat::Serve(const v1::Hello& hello, grpc::ServerContext& context, Stream& stream) {
  {
    absl::MutexLock lock(&mutex_);
    context_ = &context;
    if (is_cut_) context.TryCancel();
  }
  {
    absl::MutexLock lock(&sending_);
    stream_ = &stream;
  }
  v1::WorkerMessage message;
  *message.mutable_hello() = hello;
  do {
    absl::MutexLock lock(&handling_);
    if (handlers_.on_message != nullptr) handlers_.on_message(message);
  } while (stream.Read(&message));
  {
    absl::MutexLock lock(&sending_);
    stream_ = nullptr;
  }
  {
    absl::MutexLock lock(&mutex_);
    context_ = nullptr;
  }
  absl::MutexLock lock(&handling_);
  if (handlers_.on_end != nullptr) handlers_.on_end();
}

}  // namespace weft
