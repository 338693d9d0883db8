#include "server/http_message.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/api_error.h"
#include "server/openai_response.h"

namespace weft {
namespace {

absl::string_view Reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

// Statuses after which the official SDKs try again by themselves.
bool IsRetriedBySdks(int status) { return status == 408 || status == 409 || status == 429 || status >= 500; }

// Whether trying the same again can help.
bool MayPass(int status) { return status == 408 || status == 429 || status == 500 || status == 503 || status == 504; }

}  // namespace

HttpResponse ErrorResponse(const absl::Status& error) {
  HttpResponse response;
  response.status = HttpStatus(error);
  response.body = DumpJson(ErrorJson(error));
  std::optional<absl::Duration> wait = RetryAfter(error);
  if (!wait.has_value() && (response.status == 429 || response.status == 503)) wait = absl::Seconds(1);
  if (wait.has_value()) {
    const int64_t milliseconds = std::max<int64_t>(absl::ToInt64Milliseconds(*wait), 0);
    response.headers.emplace_back("retry-after", absl::StrCat((milliseconds + 999) / 1000));
    response.headers.emplace_back("retry-after-ms", absl::StrCat(milliseconds));
    response.headers.emplace_back("x-should-retry", "true");
  } else if (IsRetriedBySdks(response.status) && !MayPass(response.status)) {
    response.headers.emplace_back("x-should-retry", "false");
  }
  if (response.status == 401) response.headers.emplace_back("www-authenticate", "Bearer");
  return response;
}

std::string EncodeHead(const HttpResponse& response, const HttpFraming& framing) {
  std::string out = absl::StrCat("HTTP/1.1 ", response.status, " ", Reason(response.status), "\r\n");
  absl::StrAppend(&out, "date: ", absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", absl::Now(), absl::UTCTimeZone()));
  absl::StrAppend(&out, "\r\nx-request-id: ", framing.request_id, "\r\n");
  if (!response.content_type.empty()) absl::StrAppend(&out, "content-type: ", response.content_type, "\r\n");
  for (const auto& [name, value] : response.headers) absl::StrAppend(&out, name, ": ", value, "\r\n");
  if (!framing.is_stream) {
    absl::StrAppend(&out, "content-length: ", response.body.size(), "\r\n");
  } else if (!framing.is_http10) {
    absl::StrAppend(&out, "transfer-encoding: chunked\r\n");
  }
  if (!framing.keep_alive) {
    absl::StrAppend(&out, "connection: close\r\n");
  } else if (framing.is_http10) {
    absl::StrAppend(&out, "connection: keep-alive\r\n");
  }
  return absl::StrCat(out, "\r\n");
}

std::string EncodeChunk(absl::string_view data) {
  if (data.empty()) return "";
  return absl::StrCat(absl::Hex(data.size()), "\r\n", data, "\r\n");
}

}  // namespace weft
