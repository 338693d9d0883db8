#include "server/http_cors.h"

#include <algorithm>
#include <utility>

namespace weft {
namespace {

constexpr absl::string_view kAnyOrigin = "*";
constexpr char kAllowedHeaders[] = "authorization, *";  // to browsers, * is every header but authorization

bool IsAllowed(const std::string& origin, const HttpOptions& options) {
  const auto& allowed = options.allowed_origins;
  return !origin.empty() && std::any_of(allowed.begin(), allowed.end(), [&origin](const std::string& one) {
    return one == kAnyOrigin || one == origin;
  });
}

}  // namespace

void AddCorsHeaders(const HttpRequest& request, const HttpOptions& options, HttpResponse& response) {
  if (!IsAllowed(request.origin, options)) return;
  response.headers.emplace_back("access-control-allow-origin", request.origin);
  response.headers.emplace_back("access-control-expose-headers", "x-request-id, retry-after, retry-after-ms");
  response.headers.emplace_back("vary", "origin");  // caches keep the answers to different pages apart
}

bool IsPreflight(const HttpRequest& request, const HttpOptions& options) {
  return request.method == "OPTIONS" && IsAllowed(request.origin, options);
}

HttpResponse PreflightResponse(absl::string_view methods) {
  HttpResponse response;
  response.content_type.clear();
  response.headers = {{"access-control-allow-methods", std::string(methods)},
                      {"access-control-allow-headers", kAllowedHeaders},
                      {"access-control-max-age", "600"}};
  return response;
}

}  // namespace weft
