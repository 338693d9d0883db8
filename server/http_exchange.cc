#include "server/http_exchange.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "server/api_error.h"
#include "server/http_cors.h"
#include "server/http_routes.h"
#include "server/random_id.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

constexpr int kClientGone = 499;

}  // namespace

HttpExchange::HttpExchange(HttpChannel& channel, HttpContext& context, HttpRequest& request)
    : channel_(channel),
      context_(context),
      request_(request),
      request_id_(RequestId(request.request_id)),
      begin_(absl::Now()),
      keep_alive_(request.keep_alive) {}

bool HttpExchange::MayKeepAlive() const { return keep_alive_ && !context_.draining.load(); }

HttpFraming HttpExchange::Framing() const { return {request_id_, keep_alive_, streaming_, request_.is_http10}; }

asio::awaitable<void> HttpExchange::Respond(HttpResponse response) {
  status_ = response.status;
  keep_alive_ = MayKeepAlive();
  AddCorsHeaders(request_, context_.options, response);
  std::string bytes = EncodeHead(response, Framing());
  if (request_.method != "HEAD") bytes += response.body;
  first_byte_ = absl::Now();
  const bool sent = co_await channel_.Write(std::move(bytes));
  if (!sent) keep_alive_ = false;
}

asio::awaitable<void> HttpExchange::Refuse(const absl::Status& error) {
  context_.deps.metrics.CountRejected(ErrorCode(error));
  HttpResponse response = ErrorResponse(error);
  if (response.status == 405) response.headers.emplace_back("allow", AllowedMethods(request_.path));
  co_await Respond(std::move(response));
}

void HttpExchange::BeginStream() {
  streaming_ = true;
  status_ = 200;
  keep_alive_ = MayKeepAlive() && !request_.is_http10;  // whose stream ends with the connection
  HttpResponse response;
  response.content_type = "text/event-stream";
  response.headers = {{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}};  // the latter for nginx
  AddCorsHeaders(request_, context_.options, response);
  unsent_head_ = EncodeHead(response, Framing());
}

asio::awaitable<bool> HttpExchange::WriteStream(std::string data) {
  std::string bytes = std::move(unsent_head_);
  unsent_head_.clear();
  bytes += request_.is_http10 ? data : EncodeChunk(data);
  first_byte_ = std::min(first_byte_, absl::Now());
  const bool sent = co_await channel_.Write(std::move(bytes));
  if (!sent) NoteClientGone();
  co_return sent;
}

asio::awaitable<void> HttpExchange::EndStream() {
  std::string last = request_.is_http10 ? std::string() : std::string(kLastChunk);
  const bool sent = co_await channel_.Write(std::move(last));
  if (!sent) NoteClientGone();
}

void HttpExchange::NoteClientGone() {
  status_ = kClientGone;
  keep_alive_ = false;
}

void HttpExchange::Log() const {
  context_.deps.metrics.CountHttpResponse(status_);
  const absl::Time now = absl::Now();
  spdlog::log(quiet_ ? spdlog::level::debug : spdlog::level::info,
              "http id={} tenant={} route={} status={} prompt_tokens={} completion_tokens={} first_byte_ms={:.1f} "
              "total_ms={:.1f}",
              request_id_, tenant_, std::string(route_), status_, usage_.prompt_tokens, usage_.completion_tokens,
              absl::ToDoubleMilliseconds(std::min(first_byte_, now) - begin_),
              absl::ToDoubleMilliseconds(now - begin_));
}

}  // namespace weft
