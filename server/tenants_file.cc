#include "server/tenants_file.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api_error.h"
#include "server/auth.h"
#include "server/json_parse.h"
#include "server/operator_file.h"
#include "server/priority_name.h"

namespace weft {
namespace {

constexpr double kLeastWeight = 0.001;
constexpr double kMostWeight = 1000;

struct Cap {
  absl::string_view name;
  int64_t most;
  int64_t TenantPolicy::*field;
};
constexpr std::array<Cap, 3> kCaps = {{
    {"max_running", 1'000'000'000, &TenantPolicy::max_running},
    {"max_queued", 1'000'000'000, &TenantPolicy::max_queued},
    {"tokens_per_minute", 1'000'000'000'000, &TenantPolicy::max_tokens_per_minute},
}};

// Names that somebody else chose, made safe for one line.
std::string Shown(absl::string_view name) { return absl::CHexEscape(name.substr(0, 64)); }

absl::Status Refuse(absl::string_view field, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(field, " ", why));
}

// The parser's messages speak of requests.
absl::Status BadJson(const absl::Status& error) {
  const std::string code = ErrorCode(error);
  const std::string key = ErrorParam(error);
  if (code == "duplicate_key") return Refuse(key.empty() ? "a key" : key, "is given twice in one object");
  return Refuse(code, "is what the JSON parser says; the file must be one JSON object");
}

absl::Status ReadWeight(const Json& value, absl::string_view field, double& out) {
  const double weight = value.is_number() ? value.get<double>() : 0;
  if (!(weight >= kLeastWeight && weight <= kMostWeight)) {
    return Refuse(field, absl::StrCat("must be a number from ", kLeastWeight, " to ", kMostWeight));
  }
  out = weight;
  return absl::OkStatus();
}

absl::Status ReadPriority(const Json& value, absl::string_view field, Priority& out) {
  std::optional<Priority> priority;
  if (value.is_string()) priority = PriorityOfName(value.get_ref<const std::string&>());
  if (!priority.has_value()) return Refuse(field, R"(must be "low", "normal" or "high")");
  out = *priority;
  return absl::OkStatus();
}

absl::Status ReadCap(const Json& value, absl::string_view field, int64_t most, int64_t& out) {
  // A positive integer is an unsigned one; larger than int64_t it may be.
  const uint64_t number = value.is_number_unsigned() ? value.get<uint64_t>() : 0;
  if (number < 1 || number > static_cast<uint64_t>(most)) {
    return Refuse(field, absl::StrCat("must be an integer from 1 to ", most));
  }
  out = static_cast<int64_t>(number);
  return absl::OkStatus();
}

absl::Status ReadField(const std::string& name, const Json& value, absl::string_view field, TenantPolicy& out) {
  if (name == "weight") return ReadWeight(value, field, out.weight);
  if (name == "priority") return ReadPriority(value, field, out.priority);
  if (name == "max_priority") return ReadPriority(value, field, out.max_priority);
  for (const Cap& cap : kCaps) {
    if (name == cap.name) return ReadCap(value, field, cap.most, out.*cap.field);
  }
  return Refuse(field,
                "is unknown; there are weight, priority, max_priority, max_running, max_queued and tokens_per_minute");
}

absl::StatusOr<TenantPolicy> ReadPolicy(const Json& object, absl::string_view path, TenantPolicy policy) {
  if (!object.is_object()) return Refuse(path, "must be an object");
  for (const auto& [name, value] : object.items()) {
    RETURN_IF_ERROR(ReadField(name, value, absl::StrCat(path, ".", Shown(name)), policy));
  }
  if (policy.priority > policy.max_priority) {
    return Refuse(absl::StrCat(path, ".priority"),
                  absl::StrCat(PriorityName(policy.priority), " is above its max_priority, which is ",
                               PriorityName(policy.max_priority)));
  }
  return policy;
}

absl::Status ReadTenants(const Json& object, TenantPolicies& out) {
  if (!object.is_object()) return Refuse("tenants", "must be an object");
  for (const auto& [name, value] : object.items()) {
    const std::string path = absl::StrCat("tenants.", Shown(name));
    if (!IsTenantName(name)) {
      return Refuse(path, "is no tenant's name: 1 to 64 of letters, digits, '-', '_' and '.'");
    }
    ASSIGN_OR_RETURN(out.named[name], ReadPolicy(value, path, out.others));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TenantPolicies> ParseTenants(absl::string_view text) {
  const absl::StatusOr<Json> json = ParseJsonObject(text);
  if (!json.ok()) return BadJson(json.status());
  TenantPolicies policies;
  if (json->contains("default")) {
    ASSIGN_OR_RETURN(policies.others, ReadPolicy((*json)["default"], "default", {}));
  }
  for (const auto& [name, value] : json->items()) {
    if (name == "tenants") {
      RETURN_IF_ERROR(ReadTenants(value, policies));
    } else if (name != "default") {
      return Refuse(Shown(name), "is unknown; there are default and tenants");
    }
  }
  return policies;
}

absl::StatusOr<TenantPolicies> LoadTenants(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadOperatorFile("tenants file", path));
  absl::StatusOr<TenantPolicies> policies = ParseTenants(text);
  if (policies.ok()) return policies;
  return absl::InvalidArgumentError(absl::StrCat("tenants file ", path, ": ", policies.status().message()));
}

}  // namespace weft
