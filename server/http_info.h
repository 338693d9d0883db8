// Routes that tell about the server and its model. All answer at once and never wait for the scheduler.
#pragma once

#include "absl/status/statusor.h"
#include "server/http_context.h"
#include "server/http_message.h"

namespace weft {

// The service, or 503 `not_ready` while there is no model yet.
absl::StatusOr<GenerationService*> ReadyService(const HttpContext& context);

// GET /health: 200 as long as the server can finish work, so also while it drains; the reason otherwise.
absl::StatusOr<HttpResponse> ShowHealth(HttpContext& context, const HttpRequest& request);
// GET /live: 503 only when a restart is the remedy.
absl::StatusOr<HttpResponse> ShowLive(HttpContext& context, const HttpRequest& request);
// GET /ready: 200 only when new work is welcome.
absl::StatusOr<HttpResponse> ShowReady(HttpContext& context, const HttpRequest& request);

absl::StatusOr<HttpResponse> ShowMetrics(HttpContext& context, const HttpRequest& request);
absl::StatusOr<HttpResponse> ShowVersion(HttpContext& context, const HttpRequest& request);
absl::StatusOr<HttpResponse> ListModels(HttpContext& context, const HttpRequest& request);
absl::StatusOr<HttpResponse> DescribeModel(HttpContext& context, const HttpRequest& request);

}  // namespace weft
