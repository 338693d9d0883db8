#include "server/grpc_generate_call.h"

#include <exception>
#include <utility>

#include "boost/asio/post.hpp"
#include "kernels/status_macros.h"
#include "server/api_error.h"
#include "server/grpc_convert.h"

namespace weft {
namespace {

// What gRPC made of the request's bytes would otherwise stay as long as the call. It is this call's alone, made by gRPC
// as an object that isn't const, and gRPC does not look at it again.
v1::GenerateRequest TakeMessage(const v1::GenerateRequest& message) {
  v1::GenerateRequest taken;
  taken.Swap(&const_cast<v1::GenerateRequest&>(message));
  return taken;
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* GrpcGenerateCall::Start(const GrpcParts& parts,
                                                                        GenerationService* service,
                                                                        grpc::CallbackServerContext* context,
                                                                        const v1::GenerateRequest* message) {
  std::shared_ptr<GrpcGenerateCall> call(new GrpcGenerateCall(parts, service, context));
  call->self_ = call;
  call->Post([message](GrpcGenerateCall& self) { self.Begin(*message); });
  return call.get();
}

GrpcGenerateCall::GrpcGenerateCall(const GrpcParts& parts, GenerationService* service,
                                   grpc::CallbackServerContext* context)
    : parts_(parts),
      service_(service),
      context_(context),
      strand_(boost::asio::make_strand(parts.delivering)),
      hold_(parts.deps.request_bytes),
      call_(BeginCall("Generate", *context)),
      write_timer_(strand_) {}

// Handlers run on the server's threads, which an exception (out of memory, say) must not end.
template <typename Handler>
void GrpcGenerateCall::Guard(const Handler& handler) {
  try {
    handler(*this);
  } catch (const std::exception&) {
    End(absl::InternalError("a handler threw"));
  }
}

template <typename Handler>
void GrpcGenerateCall::Post(Handler handler) {
  boost::asio::post(strand_, [call = shared_from_this(), handler = std::move(handler)] { call->Guard(handler); });
}

void GrpcGenerateCall::Begin(const v1::GenerateRequest& message) {
  if (has_ended_) return;  // cancelled before it began
  if (absl::Status status = Identify(); !status.ok()) return Refuse(status);
  if (!hold_.Grow(static_cast<int64_t>(message.ByteSizeLong()))) return Refuse(Overloaded());
  StartPreparing(message);
}

absl::Status GrpcGenerateCall::Identify() {
  ASSIGN_OR_RETURN(call_.tenant, TenantOf(*context_, parts_.deps.auth));
  RETURN_IF_ERROR(CheckLoaded(service_).status());
  ASSIGN_OR_RETURN(QueuePlaces place, service_->HoldPlace(call_.tenant));
  place_.emplace(std::move(place));
  return absl::OkStatus();
}

void GrpcGenerateCall::StartPreparing(const v1::GenerateRequest& message) {
  is_preparing_ = parts_.preparing.TryPost([call = shared_from_this(), &message]() mutable {
    absl::StatusOr<std::unique_ptr<Generation>> generation = absl::InternalError("a handler threw");
    try {
      generation = call->Prepare(TakeMessage(message));
    } catch (const std::exception&) {  // out of memory, say; the server lives
    }
    boost::asio::post(call->strand_, [call, generation = std::move(generation)]() mutable {
      call->Guard([&generation](GrpcGenerateCall& self) { self.OnPrepared(std::move(generation)); });
    });
  });
  if (!is_preparing_) Refuse(Overloaded());
}

absl::StatusOr<std::unique_ptr<Generation>> GrpcGenerateCall::Prepare(v1::GenerateRequest message) {
  place_.reset();
  if (is_cancelled_) return absl::CancelledError("the call was cancelled while it waited");
  ASSIGN_OR_RETURN(GenerateRequest request, FromProto(message));
  message = v1::GenerateRequest();
  request.request_id = call_.request_id;
  request.tenant = call_.tenant;
  request.deadline = DeadlineOf(*context_);
  const auto wake = [weak = weak_from_this(), strand = strand_] {
    boost::asio::post(strand, [weak] {
      const std::shared_ptr<GrpcGenerateCall> call = weak.lock();
      if (call != nullptr) call->Guard([](GrpcGenerateCall& self) { self.Pump(); });
    });
  };
  return service_->Generate(std::move(request), wake);
}

void GrpcGenerateCall::OnPrepared(absl::StatusOr<std::unique_ptr<Generation>> generation) {
  is_preparing_ = false;
  hold_.Release();
  if (end_.has_value()) return End(*end_);  // cancelled meanwhile
  if (!generation.ok()) return Refuse(generation.status());
  generation_ = *std::move(generation);
  Pump();  // what came before generation_ was set
}

void GrpcGenerateCall::Refuse(const absl::Status& status) {
  parts_.deps.metrics.CountRejected(ErrorCode(status));
  End(status);
}

void GrpcGenerateCall::Pump() {
  if (has_ended_ || is_preparing_ || is_writing_) return;
  if (ready_.empty() && generation_ != nullptr && !end_.has_value()) Take();
  if (!ready_.empty()) return WriteNext();
  if (end_.has_value()) End(*end_);
}

void GrpcGenerateCall::Take() {
  for (const Delta& delta : generation_->Take()) {
    const absl::Status error = delta.finish.has_value() ? FinishError(*delta.finish) : absl::OkStatus();
    if (!error.ok()) {
      end_ = error;
      return;
    }
    ready_.push_back(ToProto(delta));
  }
  if (!generation_->done()) return;
  *ready_.back().mutable_usage() = ToProto(generation_->usage());
  end_ = absl::OkStatus();
}

void GrpcGenerateCall::WriteNext() {
  writing_ = std::move(ready_.front());
  ready_.pop_front();
  is_writing_ = true;
  ++num_writes_;
  WatchWrite();
  StartWrite(&writing_);
}

void GrpcGenerateCall::WatchWrite() {
  write_timer_.expires_after(absl::ToChronoNanoseconds(parts_.write_timeout));
  write_timer_.async_wait([weak = weak_from_this(), write = num_writes_](const boost::system::error_code& error) {
    const std::shared_ptr<GrpcGenerateCall> call = weak.lock();
    if (error || call == nullptr || call->has_ended_) return;
    if (!call->is_writing_ || call->num_writes_ != write) return;  // done while this handler waited its turn
    call->context_->TryCancel();  // the message under way would keep a status from being sent
    call->End(ApiError(absl::StatusCode::kCancelled, "client_too_slow", "", "the client took too long to read"));
  });
}

void GrpcGenerateCall::OnWriteDone(bool ok) {
  Post([ok](GrpcGenerateCall& self) {
    self.is_writing_ = false;
    self.write_timer_.cancel();
    if (!ok) return self.End(absl::CancelledError("the client went away"));
    self.Pump();
  });
}

// gRPC cancels a call for its client's sake, and when its deadline passes.
void GrpcGenerateCall::OnCancel() {
  is_cancelled_ = true;
  Post([](GrpcGenerateCall& self) {
    if (self.has_ended_) return;  // and the context may be gone
    const bool late = DeadlineOf(*self.context_) <= absl::Now();
    self.End(late ? DeadlinePassed()
                  : ApiError(absl::StatusCode::kCancelled, "request_cancelled", "", "the call was cancelled"));
  });
}

void GrpcGenerateCall::End(const absl::Status& status) {
  if (is_preparing_) {
    end_ = status;
    return;
  }
  if (std::exchange(has_ended_, true)) return;
  write_timer_.cancel();
  if (generation_ != nullptr) call_.usage = generation_->usage();
  generation_.reset();  // cancels what still runs
  place_.reset();
  ready_.clear();
  Finish(FinishCall(status, call_, *context_, parts_.deps.metrics));
}

void GrpcGenerateCall::OnDone() {
  // Handlers that wait in the strand hold the call too; none of them touches the context once it has ended.
  boost::asio::post(strand_, [call = std::exchange(self_, nullptr)] {});
}

}  // namespace weft
