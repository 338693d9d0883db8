// Errors as clients see them: an absl::Status that also carries a stable code word and the name of the field at fault.
// Both protocols map it by one table. Messages are fixed text: no client text, paths or library messages in them.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace weft {

// code: stable word such as "out_of_range"; param: the field at fault, or empty.
absl::Status ApiError(absl::StatusCode status, absl::string_view code, absl::string_view param,
                      absl::string_view message);

// 400 InvalidArgument, the usual case.
absl::Status BadRequest(absl::string_view code, absl::string_view param, absl::string_view message);

// 429, to be tried again soon: the whole server is full.
absl::Status Overloaded();

// 504: the deadline of the request has passed.
absl::Status DeadlinePassed();

std::string ErrorCode(const absl::Status& status);   // "internal_error" when none was set
std::string ErrorParam(const absl::Status& status);  // "" when none was set

// An HTTP status that the canonical code alone doesn't tell: 413, 415, 431, ...
absl::Status WithHttpStatus(absl::Status status, int http_status);
int HttpStatus(const absl::Status& status);

// How long a client should wait before it tries again.
absl::Status WithRetryAfter(absl::Status status, absl::Duration wait);
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

// OpenAI's `error.type` of an HTTP status: "invalid_request_error", "authentication_error", ...
absl::string_view ErrorType(int http_status);

}  // namespace weft
