// Cross-origin requests: which web pages may use the server from a browser (the CORS protocol of the Fetch standard).
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "server/config.h"
#include "server/http_message.h"

namespace weft {

// Adds the headers that let a page of request's origin read the response, where the operator named that origin.
void AddCorsHeaders(const HttpRequest& request, const HttpOptions& options, HttpResponse& response);

// A browser's question whether it may send a request, from an origin that the operator named.
bool IsPreflight(const HttpRequest& request, const HttpOptions& options);

// What it may send. `methods`: of the route.
HttpResponse PreflightResponse(absl::string_view methods);

}  // namespace weft
