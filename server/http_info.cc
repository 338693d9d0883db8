#include "server/http_info.h"

#include <algorithm>
#include <string>

#include "absl/strings/strip.h"
#include "server/api_error.h"
#include "server/openai_response.h"
#include "server/version.h"

namespace weft {
namespace {

absl::string_view Word(Health health) {
  switch (health) {
    case Health::kLoading:
      return "loading";
    case Health::kReady:
      return "ready";
    case Health::kRecovering:
      return "recovering";
    case Health::kDraining:
      return "draining";
    case Health::kDead:
      break;
  }
  return "dead";
}

HttpResponse NotServing(const HealthState& state) {
  Json body =
      ErrorJson(ApiError(absl::StatusCode::kUnavailable, state.health == Health::kDraining ? "draining" : "not_ready",
                         "", "The server does not take work now."));
  body["status"] = std::string(Word(state.health));
  body["detail"] = state.detail;
  if (state.health == Health::kLoading) body["progress"] = state.progress;
  HttpResponse response;
  response.status = 503;
  response.headers.emplace_back("retry-after", "1");
  response.body = DumpJson(body);
  return response;
}

HttpResponse EmptyOk() {
  HttpResponse response;
  response.content_type.clear();
  return response;
}

HttpResponse JsonOk(const Json& json) {
  HttpResponse response;
  response.body = DumpJson(json);
  return response;
}

Json ModelJson(const ModelInfo& model, const std::string& name) {
  return {
      {"id", name},         {"object", "model"}, {"created", absl::ToUnixSeconds(model.created)}, {"owned_by", "weft"},
      {"root", model.root}, {"parent", nullptr}, {"max_model_len", model.max_model_len}};
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Clients write "org/name" as "org%2Fname". What isn't an escape stays as it is.
std::string PercentDecode(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape =
        text[i] == '%' && i + 2 < text.size() && HexValue(text[i + 1]) >= 0 && HexValue(text[i + 2]) >= 0;
    out.push_back(escape ? static_cast<char>(HexValue(text[i + 1]) * 16 + HexValue(text[i + 2])) : text[i]);
    if (escape) i += 2;
  }
  return out;
}

}  // namespace

absl::StatusOr<GenerationService*> ReadyService(const HttpContext& context) {
  GenerationService* const service = context.service.load();
  if (service != nullptr) return service;
  return WithRetryAfter(
      ApiError(absl::StatusCode::kUnavailable, "not_ready", "", "The server is still loading its model."),
      absl::Seconds(1));
}

absl::StatusOr<HttpResponse> ShowHealth(HttpContext& context, const HttpRequest&) {
  const HealthState state = context.deps.health();
  if (state.health != Health::kReady && state.health != Health::kDraining) return NotServing(state);
  if (!state.is_impaired) return EmptyOk();
  return JsonOk({{"status", std::string(Word(state.health))}, {"detail", state.detail}});
}

absl::StatusOr<HttpResponse> ShowLive(HttpContext& context, const HttpRequest&) {
  const HealthState state = context.deps.health();
  if (state.health != Health::kDead) return EmptyOk();
  return NotServing(state);
}

absl::StatusOr<HttpResponse> ShowReady(HttpContext& context, const HttpRequest&) {
  HealthState state = context.deps.health();
  if (state.health == Health::kReady && context.draining.load()) state.health = Health::kDraining;
  if (state.health == Health::kReady) return EmptyOk();
  return NotServing(state);
}

absl::StatusOr<HttpResponse> ShowMetrics(HttpContext& context, const HttpRequest&) {
  HttpResponse response;
  response.content_type = std::string(Metrics::ContentType());
  response.body = context.deps.metrics.Render();
  return response;
}

absl::StatusOr<HttpResponse> ShowVersion(HttpContext&, const HttpRequest&) {
  return JsonOk({{"version", std::string(Version())}, {"build", std::string(BuildInfo())}});
}

absl::StatusOr<HttpResponse> ListModels(HttpContext& context, const HttpRequest&) {
  const absl::StatusOr<GenerationService*> service = ReadyService(context);
  if (!service.ok()) return service.status();
  const ModelInfo& model = (*service)->model();
  Json list = Json::array();
  for (const std::string& name : model.names) list.push_back(ModelJson(model, name));
  return JsonOk({{"object", "list"}, {"data", std::move(list)}});
}

absl::StatusOr<HttpResponse> DescribeModel(HttpContext& context, const HttpRequest& request) {
  const absl::StatusOr<GenerationService*> service = ReadyService(context);
  if (!service.ok()) return service.status();
  const ModelInfo& model = (*service)->model();
  const std::string name = PercentDecode(absl::StripPrefix(request.path, "/v1/models/"));
  if (std::find(model.names.begin(), model.names.end(), name) == model.names.end()) {
    return ApiError(absl::StatusCode::kNotFound, "model_not_found", "model", "The model does not exist.");
  }
  return JsonOk(ModelJson(model, name));
}

}  // namespace weft
