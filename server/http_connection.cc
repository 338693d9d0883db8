#include "server/http_connection.h"

#include <exception>
#include <string>
#include <utility>
#include <variant>

#include "absl/time/clock.h"
#include "server/api_error.h"
#include "server/http_cors.h"
#include "server/http_exchange.h"
#include "server/http_request_reader.h"
#include "server/http_routes.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

// What can be decided before the body is read.
absl::StatusOr<const HttpRoute*> Admit(HttpExchange& exchange) {
  const absl::StatusOr<const HttpRoute*> route = FindRoute(exchange.request());
  if (!route.ok()) return route;
  exchange.set_route((*route)->path, (*route)->logging == HttpLogging::kQuiet);
  absl::StatusOr<std::string> tenant = Authenticate(**route, exchange.request(), exchange.context().deps.auth);
  if (!tenant.ok()) return tenant.status();
  exchange.set_tenant(*std::move(tenant));
  if (absl::Status body = CheckBodyHeaders(**route, exchange.request()); !body.ok()) return body;
  return route;
}

asio::awaitable<void> Handle(HttpExchange& exchange, const HttpRoute& route) {
  if (const auto* slow = std::get_if<SlowHandler>(&route.handler)) {
    co_await (*slow)(exchange);
    co_return;
  }
  absl::StatusOr<HttpResponse> response = std::get<QuickHandler>(route.handler)(exchange.context(), exchange.request());
  HttpResponse answer = response.ok() ? *std::move(response) : ErrorResponse(response.status());
  co_await exchange.Respond(std::move(answer));
}

// Reads the body of an admitted request and answers.
asio::awaitable<void> ReadBodyAndHandle(HttpExchange& exchange, HttpRequestReader& reader, const HttpRoute& route) {
  const bool waits = !exchange.request().expect.empty() && exchange.request().has_body();
  if (waits) {
    std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    const bool sent = co_await exchange.channel().Write(std::move(go_on));
    if (!sent) co_return exchange.NoteClientGone();
  }
  const absl::Status body = co_await reader.ReadBody();
  if (body.ok()) {
    co_await Handle(exchange, route);
  } else if (absl::IsCancelled(body)) {
    exchange.NoteClientGone();
  } else {
    exchange.CloseAfter();
    co_await exchange.Refuse(body);
  }
}

// False: the connection is to be closed.
asio::awaitable<bool> ServeRequest(HttpChannel& channel, HttpContext& context) {
  HttpRequestReader reader(channel, context.options, context.deps.request_bytes);
  const absl::Status head = co_await reader.ReadHead();
  if (absl::IsCancelled(head)) co_return false;
  HttpExchange exchange(channel, context, reader.request());
  if (!head.ok()) {
    exchange.CloseAfter();
    co_await exchange.Refuse(head);
  } else {
    const absl::StatusOr<const HttpRoute*> route = Admit(exchange);
    if (IsPreflight(exchange.request(), context.options)) {
      if (exchange.request().has_body()) exchange.CloseAfter();
      HttpResponse allowed = PreflightResponse(AllowedMethods(exchange.request().path));
      co_await exchange.Respond(std::move(allowed));
    } else if (route.ok()) {
      co_await ReadBodyAndHandle(exchange, reader, **route);
    } else {
      if (exchange.request().has_body()) exchange.CloseAfter();  // rather than read what nobody wants
      co_await exchange.Refuse(route.status());
    }
  }
  exchange.Log();
  co_return exchange.keep_alive();
}

}  // namespace

asio::awaitable<void> ServeConnection(std::shared_ptr<HttpChannel> channel,
                                      std::unique_ptr<HttpRegistration> registration, HttpContext& context) {
  try {
    bool going_on = co_await channel->Handshake(absl::Now() + context.options.header_timeout);
    while (going_on) going_on = co_await ServeRequest(*channel, context);
    co_await channel->LingerAndClose();
  } catch (const std::exception&) {  // out of memory, say; the connection ends, the server lives
    spdlog::error("http: a connection ended with an exception");
    channel->CutOff();
  }
  registration.reset();
}

}  // namespace weft
