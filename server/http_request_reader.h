// Reads one request from a connection.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "boost/asio/awaitable.hpp"
#include "boost/beast/http.hpp"
#include "server/config.h"
#include "server/http_channel.h"
#include "server/http_message.h"

namespace weft {

// Head first, so that a request can be refused before its body is read. Owned by the connection's coroutine, for one
// request. HttpHeadScanner looks at the head first, then Beast parses head and body.
//
// Errors carry the HTTP status of the answer; Cancelled means that there is nobody to answer.
class HttpRequestReader {
 public:
  HttpRequestReader(HttpChannel& channel, const HttpOptions& options, MemoryBudget& budget);
  HttpRequestReader(const HttpRequestReader&) = delete;
  HttpRequestReader& operator=(const HttpRequestReader&) = delete;

  // Waits for a request to begin, and reads its head. Everything but `body` of request() is known then.
  asio::awaitable<absl::Status> ReadHead();

  // Requires that ReadHead succeeded.
  asio::awaitable<absl::Status> ReadBody();

  HttpRequest& request() { return request_; }

 private:
  absl::Status ParseHead(absl::string_view head);
  absl::Status FeedBody();
  absl::Status BodyError(const boost::system::error_code& error) const;

  HttpChannel& channel_;
  const HttpOptions& options_;
  HttpRequest request_;
  int64_t num_chunks_ = 0;
  // Beast keeps a reference to it.
  std::function<void(uint64_t, boost::beast::string_view, boost::system::error_code&)> on_chunk_;
  boost::beast::http::request_parser<boost::beast::http::string_body> parser_;
};

}  // namespace weft
