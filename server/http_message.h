// Requests and responses as handlers see them: plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/memory_budget.h"

namespace weft {

struct HttpRequest {
  std::string method;
  std::string path;  // as PathOfTarget gives it
  bool is_http10 = false;
  bool keep_alive = true;  // the client's wish
  std::optional<uint64_t> content_length;
  bool is_chunked = false;
  std::vector<std::string> authorization;  // every such header
  std::vector<std::string> fairness_ids;   // every kFairnessIdHeader
  std::vector<std::string> content_types;  // every such header
  std::string content_encoding;
  std::string expect;
  std::string request_id;  // x-request-id, as it came
  std::string timeout;     // x-request-timeout, as it came
  std::string origin;      // of the web page that asks; empty for all other clients
  std::string body;
  std::optional<MemoryBudget::Hold> body_hold;  // the body's bytes, while they are here

  bool has_body() const { return is_chunked || content_length.value_or(0) > 0; }
  // The body is not needed any more.
  void DropBody() {
    body = std::string();
    body_hold.reset();
  }
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

// An error of any handler as its JSON answer, with the headers that tell a client whether and when to try again.
HttpResponse ErrorResponse(const absl::Status& error);

// How the body is delimited and what the connection does afterwards.
struct HttpFraming {
  absl::string_view request_id;
  bool keep_alive = true;
  bool is_stream = false;  // chunked, or, for HTTP/1.0, up to the end of the connection
  bool is_http10 = false;
};

// Status line and headers, with the blank line. `response.body` gives the length of what isn't a stream.
std::string EncodeHead(const HttpResponse& response, const HttpFraming& framing);

// One chunk of a chunked body; none for empty data, which would end it.
std::string EncodeChunk(absl::string_view data);
inline constexpr absl::string_view kLastChunk = "0\r\n\r\n";

}  // namespace weft
