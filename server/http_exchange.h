// One request and its answer, as handlers see them.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "boost/asio/awaitable.hpp"
#include "server/generation.h"
#include "server/http_channel.h"
#include "server/http_context.h"
#include "server/http_message.h"

namespace weft {

// Owned by the connection's coroutine, for one request. Answers exactly once: Respond, or BeginStream, any number of
// WriteStream, EndStream.
class HttpExchange {
 public:
  HttpExchange(HttpChannel& channel, HttpContext& context, HttpRequest& request);
  HttpExchange(const HttpExchange&) = delete;
  HttpExchange& operator=(const HttpExchange&) = delete;

  HttpChannel& channel() { return channel_; }
  HttpContext& context() { return context_; }
  const HttpRequest& request() const { return request_; }
  void DropBody() { request_.DropBody(); }  // once it has been parsed
  const std::string& request_id() const { return request_id_; }

  asio::awaitable<void> Respond(HttpResponse response);
  asio::awaitable<void> Refuse(const absl::Status& error);  // responds with it, and counts it

  // Server-sent events. The head goes out together with the first data. WriteStream is false once nobody reads any
  // more.
  void BeginStream();
  bool streaming() const { return streaming_; }
  asio::awaitable<bool> WriteStream(std::string data);
  asio::awaitable<void> EndStream();

  // The connection closes after this answer.
  void CloseAfter() { keep_alive_ = false; }
  bool keep_alive() const { return keep_alive_; }

  // For the log and the metrics.
  void set_route(absl::string_view route, bool quiet) { route_ = route, quiet_ = quiet; }
  void set_tenant(std::string tenant) { tenant_ = std::move(tenant); }
  const std::string& tenant() const { return tenant_; }
  void set_usage(const Usage& usage) { usage_ = usage; }
  void NoteClientGone();  // before anything was answered: 499

  // Writes the access log's line and counts the answer. No content of requests or answers goes there.
  void Log() const;

 private:
  bool MayKeepAlive() const;
  HttpFraming Framing() const;

  HttpChannel& channel_;
  HttpContext& context_;
  HttpRequest& request_;
  const std::string request_id_;
  const absl::Time begin_;
  bool keep_alive_;
  bool streaming_ = false;
  std::string unsent_head_;

  absl::string_view route_ = "none";
  bool quiet_ = false;
  std::string tenant_ = "default";
  int status_ = 0;
  Usage usage_;
  absl::Time first_byte_ = absl::InfiniteFuture();
};

}  // namespace weft
