// The one table of routes: what there is, who may ask, and who answers.
#pragma once

#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "boost/asio/awaitable.hpp"
#include "server/http_context.h"
#include "server/http_exchange.h"
#include "server/http_message.h"

namespace weft {

enum class HttpAccess {
  kOpen,  // probes and scrapers, which have no key; shows no request
  kKey,   // an API key, where the server has any
};

enum class HttpLogging { kQuiet, kLoud };

// Answers at once, on the connection's thread.
using QuickHandler = absl::StatusOr<HttpResponse> (*)(HttpContext& context, const HttpRequest& request);
// Answers when it has parsed, tokenized, generated.
using SlowHandler = asio::awaitable<void> (*)(HttpExchange& exchange);

// Every field has to be given: a route without a decision about access doesn't compile.
struct HttpRoute {
  constexpr HttpRoute(absl::string_view route_method, absl::string_view route_path, HttpAccess route_access,
                      HttpLogging route_logging, std::variant<QuickHandler, SlowHandler> route_handler)
      : method(route_method), path(route_path), access(route_access), logging(route_logging), handler(route_handler) {}

  absl::string_view method;  // GET, which HEAD may ask for too, or POST, which has a JSON body
  absl::string_view path;    // as a whole; one that ends in "{id}" takes any non-empty rest
  HttpAccess access;
  HttpLogging logging;
  std::variant<QuickHandler, SlowHandler> handler;
};

absl::Span<const HttpRoute> HttpRoutes();

// Errors: 404 `not_found`, 405 `method_not_allowed`. Paths are compared byte by byte.
absl::StatusOr<const HttpRoute*> FindRoute(const HttpRequest& request);

// For the Allow header of a 405: "GET, HEAD".
std::string AllowedMethods(absl::string_view path);

// The tenant that pays, as `auth` has it; "default" on open routes, and where `auth` is null.
absl::StatusOr<std::string> Authenticate(const HttpRoute& route, const HttpRequest& request, const Authenticator* auth);

// Whether the body is one that can be read: its length is known, it is JSON, it isn't compressed. Errors: 411, 415,
// 417.
absl::Status CheckBodyHeaders(const HttpRoute& route, const HttpRequest& request);

}  // namespace weft
