// A Rendezvous over the link to the server.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/grpcpp.h"
#include "kernels/rendezvous.h"
#include "weft/v1/worker.grpc.pb.h"

namespace weft {

// Of one group: `scope` is the engine's, `group` a name for each of its groups.
class LinkRendezvous final : public Rendezvous {
 public:
  LinkRendezvous(v1::Workers::StubInterface& stub, std::string scope, std::string group)
      : stub_(stub), scope_(std::move(scope)), group_(std::move(group)) {}

  absl::Status Set(absl::string_view key, absl::string_view value) override {
    v1::PublishRequest request;
    request.set_scope(scope_);
    request.set_key(absl::StrCat(group_, "/", key));
    request.set_value(std::string(value));
    grpc::ClientContext context;
    EndAfter(context, absl::ZeroDuration());
    v1::PublishResponse response;
    return ToStatus(stub_.Publish(&context, request, &response));
  }

  absl::StatusOr<std::string> Get(absl::string_view key, absl::Duration timeout) override {
    v1::LookupRequest request;
    request.set_scope(scope_);
    request.set_key(absl::StrCat(group_, "/", key));
    request.set_timeout_seconds(absl::ToDoubleSeconds(timeout));
    grpc::ClientContext context;
    EndAfter(context, timeout);
    v1::LookupResponse response;
    const grpc::Status status = stub_.Lookup(&context, request, &response);
    if (status.error_code() == grpc::NOT_FOUND) return absl::DeadlineExceededError(status.error_message());
    if (!status.ok()) return ToStatus(status);
    return response.value();
  }

 private:
  // The server answers in time, unless it is lost.
  static void EndAfter(grpc::ClientContext& context, absl::Duration time) {
    constexpr absl::Duration kAnswer = absl::Seconds(10);
    context.set_deadline(absl::ToChronoTime(absl::Now() + time + kAnswer));
  }

  static absl::Status ToStatus(const grpc::Status& status) {
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }

  v1::Workers::StubInterface& stub_;
  const std::string scope_;
  const std::string group_;
};

}  // namespace weft
