#include "server/http_request_reader.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "server/api_error.h"
#include "server/authenticator.h"
#include "server/http_head.h"
#include "server/http_limits.h"

namespace weft {
namespace {

namespace http = boost::beast::http;

absl::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

absl::Status Malformed() { return BadRequest("bad_request", "", "The request is malformed."); }

absl::Status TooSlow() {
  return WithHttpStatus(ApiError(absl::StatusCode::kDeadlineExceeded, "timeout", "", "The request came too slowly."),
                        408);
}

absl::Status TooLarge(absl::string_view code, absl::string_view message) {
  return WithHttpStatus(BadRequest(code, "", message), 413);
}

absl::Status Gone() { return absl::CancelledError("the client is gone"); }

// What Beast's fields say, as handlers want it.
void CopyFields(const http::request_header<>& header, HttpRequest& out) {
  for (const auto& field : header) {
    const absl::string_view name = View(field.name_string());
    const std::string value(View(field.value()));
    uint64_t length = 0;
    if (absl::EqualsIgnoreCase(name, "authorization")) out.authorization.push_back(value);
    if (absl::EqualsIgnoreCase(name, kFairnessIdHeader)) out.fairness_ids.push_back(value);
    if (absl::EqualsIgnoreCase(name, "content-type")) out.content_types.push_back(value);
    if (absl::EqualsIgnoreCase(name, "content-encoding")) out.content_encoding = value;
    if (absl::EqualsIgnoreCase(name, "expect")) out.expect = value;
    if (absl::EqualsIgnoreCase(name, "x-request-id")) out.request_id = value;
    if (absl::EqualsIgnoreCase(name, "x-request-timeout")) out.timeout = value;
    if (absl::EqualsIgnoreCase(name, "origin")) out.origin = value;
    if (absl::EqualsIgnoreCase(name, "transfer-encoding")) out.is_chunked = true;
    if (absl::EqualsIgnoreCase(name, "content-length") && absl::SimpleAtoi(value, &length)) out.content_length = length;
  }
}

}  // namespace

HttpRequestReader::HttpRequestReader(HttpChannel& channel, const HttpOptions& options, MemoryBudget& budget)
    : channel_(channel), options_(options) {
  request_.body_hold.emplace(budget);
  on_chunk_ = [this](uint64_t, boost::beast::string_view, boost::system::error_code& error) {
    if (++num_chunks_ > kMaxChunks) error = http::error::bad_chunk;
  };
  parser_.header_limit(static_cast<uint32_t>(options.max_header_bytes));
  parser_.body_limit(static_cast<uint64_t>(options.max_body_bytes));
  parser_.on_chunk_header(on_chunk_);
}

asio::awaitable<absl::Status> HttpRequestReader::ReadHead() {
  channel_.set_idle(true);
  const bool began = co_await channel_.ReadBeyond(0, absl::Now() + options_.idle_timeout);
  channel_.set_idle(false);
  if (!began) co_return Gone();
  const absl::Time deadline = absl::Now() + options_.header_timeout;
  HttpHeadScanner scanner(static_cast<size_t>(options_.max_header_bytes));
  bool may_skip_blank_line = true;  // RFC 9112, section 2.2: some clients end a body with one too many
  for (;;) {
    if (may_skip_blank_line && absl::StartsWith(channel_.input(), "\r\n")) {
      channel_.Consume(2);
      may_skip_blank_line = false;
    }
    const bool is_blank_line_begin = may_skip_blank_line && channel_.input() == "\r";
    if (!is_blank_line_begin && !channel_.input().empty()) {
      const absl::Status scanned = scanner.Scan(channel_.input());
      if (!scanned.ok()) co_return scanned;
      may_skip_blank_line = false;
    }
    if (scanner.head_bytes().has_value()) break;
    const bool more = co_await channel_.ReadBeyond(channel_.input().size(), deadline);
    if (!more) co_return channel_.client_gone() ? Gone() : TooSlow();
  }
  const absl::Status parsed = ParseHead(channel_.input().substr(0, *scanner.head_bytes()));
  channel_.Consume(*scanner.head_bytes());
  co_return parsed;
}

absl::Status HttpRequestReader::ParseHead(absl::string_view head) {
  boost::system::error_code error;
  parser_.put(asio::buffer(head.data(), head.size()), error);
  if (error == http::error::body_limit) return BodyError(error);
  if ((error && error != http::error::need_more) || !parser_.is_header_done()) return Malformed();
  const auto& header = parser_.get();
  request_.method = std::string(View(header.method_string()));
  request_.path = std::string(PathOfTarget(View(header.target())));
  request_.is_http10 = header.version() == 10;
  request_.keep_alive = header.keep_alive();
  CopyFields(header, request_);
  parser_.eager(true);
  return absl::OkStatus();
}

absl::Status HttpRequestReader::BodyError(const boost::system::error_code& error) const {
  if (num_chunks_ > kMaxChunks) return TooLarge("too_many_chunks", "The body has more than 65536 chunks.");
  if (error == http::error::body_limit) return TooLarge("request_too_large", "The body is too large.");
  return Malformed();
}

absl::Status HttpRequestReader::FeedBody() {
  while (!parser_.is_done() && !channel_.input().empty()) {
    boost::system::error_code error;
    const absl::string_view input = channel_.input();
    const size_t taken = parser_.put(asio::buffer(input.data(), input.size()), error);
    channel_.Consume(taken);
    if (!request_.body_hold->Grow(static_cast<int64_t>(taken))) return Overloaded();
    if (error && error != http::error::need_more) return BodyError(error);
    if (taken == 0 && channel_.input().size() >= kMaxInputBytes) return Malformed();  // an endless chunk header, say
    if (taken == 0) break;
  }
  return absl::OkStatus();
}

asio::awaitable<absl::Status> HttpRequestReader::ReadBody() {
  // Each stretch of header_timeout brings its share, or the body's end: bytes that came fast earn no idle time later.
  const auto share = static_cast<int64_t>(absl::ToDoubleSeconds(options_.header_timeout) * kMinBodyBytesPerSecond);
  absl::Time deadline = absl::Now() + options_.header_timeout;
  int64_t num_bytes = 0;  // in this stretch
  for (;;) {
    num_bytes += static_cast<int64_t>(channel_.input().size());
    const absl::Status fed = FeedBody();
    if (!fed.ok()) co_return fed;
    if (parser_.is_done()) break;
    num_bytes -= static_cast<int64_t>(channel_.input().size());
    if (num_bytes >= share) {
      deadline = absl::Now() + options_.header_timeout;
      num_bytes = 0;
    }
    const bool more = co_await channel_.ReadBeyond(channel_.input().size(), deadline);
    if (!more) co_return channel_.client_gone() ? Gone() : TooSlow();
  }
  request_.body = std::move(parser_.get().body());
  co_return absl::OkStatus();
}

}  // namespace weft
