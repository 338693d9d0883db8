#include "server/authenticator.h"

#include <optional>

#include "kernels/status_macros.h"
#include "server/api_error.h"

namespace weft {
namespace {

absl::StatusOr<std::string> TenantOfKey(const Credentials& credentials, const KeyStore* keys) {
  if (keys == nullptr) return "default";
  if (credentials.authorization.size() == 1) {
    const std::optional<absl::string_view> key = BearerKey(credentials.authorization[0]);
    std::optional<std::string> tenant = key.has_value() ? keys->TenantOf(*key) : std::nullopt;
    if (tenant.has_value()) return *std::move(tenant);
  }
  return ApiError(absl::StatusCode::kUnauthenticated, "invalid_api_key", "", "A valid API key is needed.");
}

}  // namespace

absl::StatusOr<std::string> Authenticator::TenantOf(const Credentials& credentials) const {
  std::shared_ptr<const KeyStore> keys;
  {
    absl::MutexLock lock(&mutex_);
    keys = keys_;
  }
  ASSIGN_OR_RETURN(std::string tenant, TenantOfKey(credentials, keys.get()));
  if (!trust_gateway_ || credentials.fairness_ids.empty()) return tenant;
  const absl::string_view named = credentials.fairness_ids.front();
  if (credentials.fairness_ids.size() > 1 || !IsTenantName(named)) {
    return BadRequest("out_of_range", kFairnessIdHeader,
                      "must be one tenant's name: 1 to 64 of letters, digits, '-', '_' and '.'");
  }
  return std::string(named);
}

}  // namespace weft
