#include "server/api_error.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace weft {
namespace {

constexpr absl::string_view kCodeUrl = "weft/code";
constexpr absl::string_view kParamUrl = "weft/param";
constexpr absl::string_view kHttpStatusUrl = "weft/http-status";
constexpr absl::string_view kRetryAfterUrl = "weft/retry-after-ms";

std::string Payload(const absl::Status& status, absl::string_view url) {
  const auto payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

int CanonicalHttpStatus(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return 499;  // nginx's word for a client that closed first
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

}  // namespace

absl::Status ApiError(absl::StatusCode status, absl::string_view code, absl::string_view param,
                      absl::string_view message) {
  absl::Status error(status, message);
  error.SetPayload(kCodeUrl, absl::Cord(code));
  if (!param.empty()) error.SetPayload(kParamUrl, absl::Cord(param));
  return error;
}

absl::Status BadRequest(absl::string_view code, absl::string_view param, absl::string_view message) {
  return ApiError(absl::StatusCode::kInvalidArgument, code, param, message);
}

absl::Status Overloaded() {
  constexpr absl::Duration kRetry = absl::Seconds(1);  // room comes within a second or not at all
  return WithRetryAfter(
      ApiError(absl::StatusCode::kResourceExhausted, "server_overloaded", "", "The server is full at the moment."),
      kRetry);
}

absl::Status DeadlinePassed() {
  return ApiError(absl::StatusCode::kDeadlineExceeded, "timeout", "", "The request's deadline has passed.");
}

std::string ErrorCode(const absl::Status& status) {
  std::string code = Payload(status, kCodeUrl);
  return code.empty() ? "internal_error" : code;
}

std::string ErrorParam(const absl::Status& status) { return Payload(status, kParamUrl); }

absl::Status WithHttpStatus(absl::Status status, int http_status) {
  status.SetPayload(kHttpStatusUrl, absl::Cord(absl::StrCat(http_status)));
  return status;
}

int HttpStatus(const absl::Status& status) {
  int http_status = 0;
  if (absl::SimpleAtoi(Payload(status, kHttpStatusUrl), &http_status)) return http_status;
  return CanonicalHttpStatus(status.code());
}

absl::Status WithRetryAfter(absl::Status status, absl::Duration wait) {
  status.SetPayload(kRetryAfterUrl, absl::Cord(absl::StrCat(absl::ToInt64Milliseconds(wait))));
  return status;
}

std::optional<absl::Duration> RetryAfter(const absl::Status& status) {
  int64_t milliseconds = 0;
  if (!absl::SimpleAtoi(Payload(status, kRetryAfterUrl), &milliseconds)) return std::nullopt;
  return absl::Milliseconds(milliseconds);
}

absl::string_view ErrorType(int http_status) {
  switch (http_status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    default:
      return http_status >= 500 ? "server_error" : "invalid_request_error";
  }
}

}  // namespace weft
