#include "server/http_routes.h"

#include <array>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/api_error.h"
#include "server/http_info.h"
#include "server/http_openai.h"

namespace weft {
namespace {

constexpr auto kOpen = HttpAccess::kOpen;
constexpr auto kKey = HttpAccess::kKey;
constexpr auto kQuiet = HttpLogging::kQuiet;
constexpr auto kLoud = HttpLogging::kLoud;

// /metrics is open because scrapers have no key. It names the busiest tenants with the lengths of their queues, so it
// is for the operator's network alone.
constexpr std::array<HttpRoute, 11> kRoutes = {{
    {"POST", "/v1/chat/completions", kKey, kLoud, ServeChatCompletions},
    {"POST", "/v1/completions", kKey, kLoud, ServeCompletions},
    {"POST", "/tokenize", kKey, kLoud, ServeTokenize},
    {"POST", "/detokenize", kKey, kLoud, ServeDetokenize},
    {"GET", "/v1/models", kKey, kLoud, ListModels},
    {"GET", "/v1/models/{id}", kKey, kLoud, DescribeModel},
    {"GET", "/health", kOpen, kQuiet, ShowHealth},
    {"GET", "/live", kOpen, kQuiet, ShowLive},
    {"GET", "/ready", kOpen, kQuiet, ShowReady},
    {"GET", "/metrics", kOpen, kQuiet, ShowMetrics},
    {"GET", "/version", kOpen, kQuiet, ShowVersion},
}};

bool MatchesPath(const HttpRoute& route, absl::string_view path) {
  absl::string_view stem = route.path;
  if (!absl::ConsumeSuffix(&stem, "{id}")) return path == stem;
  return absl::StartsWith(path, stem) && path.size() > stem.size();
}

bool MatchesMethod(const HttpRoute& route, absl::string_view method) {
  return method == route.method || (method == "HEAD" && route.method == "GET");
}

absl::Status UnsupportedMediaType(absl::string_view message) {
  return WithHttpStatus(BadRequest("unsupported_media_type", "", message), 415);
}

// "application/json", perhaps with a charset, which can only be UTF-8.
bool IsJson(absl::string_view content_type) {
  std::vector<absl::string_view> parts = absl::StrSplit(content_type, ';');
  if (!absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(parts[0]), "application/json")) return false;
  for (size_t i = 1; i < parts.size(); ++i) {
    const absl::string_view parameter = absl::StripAsciiWhitespace(parts[i]);
    if (!absl::StartsWithIgnoreCase(parameter, "charset=")) continue;
    const absl::string_view charset = parameter.substr(8);
    if (!absl::EqualsIgnoreCase(charset, "utf-8") && !absl::EqualsIgnoreCase(charset, "\"utf-8\"")) return false;
  }
  return true;
}

}  // namespace

absl::Span<const HttpRoute> HttpRoutes() { return kRoutes; }

absl::StatusOr<const HttpRoute*> FindRoute(const HttpRequest& request) {
  bool path_known = false;
  for (const HttpRoute& route : kRoutes) {
    if (!MatchesPath(route, request.path)) continue;
    path_known = true;
    if (MatchesMethod(route, request.method)) return &route;
  }
  if (!path_known) return ApiError(absl::StatusCode::kNotFound, "not_found", "", "There is no such route.");
  return WithHttpStatus(BadRequest("method_not_allowed", "", "This route does not have this method."), 405);
}

std::string AllowedMethods(absl::string_view path) {
  std::vector<absl::string_view> methods;
  for (const HttpRoute& route : kRoutes) {
    if (!MatchesPath(route, path)) continue;
    methods.push_back(route.method);
    if (route.method == "GET") methods.push_back("HEAD");
  }
  return absl::StrJoin(methods, ", ");
}

absl::StatusOr<std::string> Authenticate(const HttpRoute& route, const HttpRequest& request,
                                         const Authenticator* auth) {
  if (auth == nullptr || route.access == HttpAccess::kOpen) return "default";
  return auth->TenantOf({{request.authorization.begin(), request.authorization.end()},
                         {request.fairness_ids.begin(), request.fairness_ids.end()}});
}

absl::Status CheckBodyHeaders(const HttpRoute& route, const HttpRequest& request) {
  if (!request.expect.empty() && !absl::EqualsIgnoreCase(request.expect, "100-continue")) {
    return WithHttpStatus(BadRequest("expectation_failed", "", "The only expectation is 100-continue."), 417);
  }
  if (route.method != "POST") return absl::OkStatus();  // a body on GET is read and ignored
  if (!request.content_length.has_value() && !request.is_chunked) {
    return WithHttpStatus(BadRequest("length_required", "", "The body's length must be given."), 411);
  }
  if (!request.content_encoding.empty() && !absl::EqualsIgnoreCase(request.content_encoding, "identity")) {
    return UnsupportedMediaType("Compressed bodies are not supported.");
  }
  if (request.content_types.size() != 1 || !IsJson(request.content_types[0])) {
    return UnsupportedMediaType("The body must be application/json in UTF-8.");
  }
  return absl::OkStatus();
}

}  // namespace weft
