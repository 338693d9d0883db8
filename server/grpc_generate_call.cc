#include "server/grpc_generate_call.h"

#include <chrono>
#include <exception>
#include <utility>

#include "boost/asio/post.hpp"
#include "kernels/status_macros.h"
#include "server/api_error.h"
#include "server/grpc_convert.h"

namespace weft {

grpc::ServerWriteReactor<v1::GenerateResponse>* GrpcGenerateCall::Start(const Deps& deps,
                                                                        grpc::CallbackServerContext* context,
                                                                        const v1::GenerateRequest* message) {
  std::shared_ptr<GrpcGenerateCall> call(new GrpcGenerateCall(deps, context));
  call->self_ = call;
  call->Post([message](GrpcGenerateCall& self) { self.Begin(*message); });
  return call.get();
}

GrpcGenerateCall::GrpcGenerateCall(const Deps& deps, grpc::CallbackServerContext* context)
    : deps_(deps), context_(context), strand_(boost::asio::make_strand(*deps.threads)), write_timer_(strand_) {}

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
  if (absl::Status status = Admit(message); !status.ok()) return End(status);
  Pump();  // what came before generation_ was set
}

absl::Status GrpcGenerateCall::Admit(const v1::GenerateRequest& message) {
  const std::string request_id = RequestIdOf(*context_);
  context_->AddInitialMetadata("x-request-id", request_id);
  ASSIGN_OR_RETURN(std::string tenant, TenantOf(*context_, deps_.keys));
  ASSIGN_OR_RETURN(GenerationService * service, CheckLoaded(deps_.service));
  ASSIGN_OR_RETURN(GenerateRequest request, FromProto(message));
  request.request_id = request_id;
  request.tenant = std::move(tenant);
  const auto wake = [weak = weak_from_this(), strand = strand_] {
    boost::asio::post(strand, [weak] {
      const std::shared_ptr<GrpcGenerateCall> call = weak.lock();
      if (call != nullptr) call->Guard([](GrpcGenerateCall& self) { self.Pump(); });
    });
  };
  ASSIGN_OR_RETURN(generation_, service->Generate(std::move(request), wake));
  return absl::OkStatus();
}

void GrpcGenerateCall::Pump() {
  if (has_ended_ || is_writing_) return;
  if (ready_.empty() && generation_ != nullptr && !end_.has_value()) Take();
  if (!ready_.empty()) return WriteNext();
  if (end_.has_value()) End(*end_);
}

void GrpcGenerateCall::Take() {
  for (const Delta& delta : generation_->Take()) {
    if (delta.finish.has_value() && delta.finish->kind == StopKind::kError) {
      end_ = delta.finish->status;
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
  WatchWrite();
  StartWrite(&writing_);
}

void GrpcGenerateCall::WatchWrite() {
  write_timer_.expires_after(absl::ToChronoNanoseconds(deps_.write_timeout));
  write_timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const std::shared_ptr<GrpcGenerateCall> call = weak.lock();
    if (error || call == nullptr || call->has_ended_ || !call->is_writing_) return;
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
  Post([](GrpcGenerateCall& self) {
    if (self.has_ended_) return;  // and the context may be gone
    const bool late = self.context_->deadline() <= std::chrono::system_clock::now();
    self.End(late ? ApiError(absl::StatusCode::kDeadlineExceeded, "timeout", "", "the call's deadline has passed")
                  : ApiError(absl::StatusCode::kCancelled, "request_cancelled", "", "the call was cancelled"));
  });
}

void GrpcGenerateCall::End(const absl::Status& status) {
  if (std::exchange(has_ended_, true)) return;
  write_timer_.cancel();
  generation_.reset();  // cancels what still runs
  ready_.clear();
  Finish(FinishStatus(status, *context_, *deps_.metrics));
}

void GrpcGenerateCall::OnDone() {
  // Handlers that wait in the strand hold the call too; none of them touches the context once it has ended.
  boost::asio::post(strand_, [call = std::exchange(self_, nullptr)] {});
}

}  // namespace weft
