// What the operator grants each tenant.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "scheduler/request.h"

namespace weft {

struct TenantPolicy {
  static constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

  double weight = 1.0;                         // its share of the service, among those that want some
  Priority priority = Priority::kNormal;       // of requests that don't ask for one
  Priority max_priority = Priority::kNormal;   // that a request may ask for
  int64_t max_running = kUnlimited;            // sequences on all replicas together; others wait
  int64_t max_queued = kUnlimited;             // sequences; one more is refused
  int64_t max_tokens_per_minute = kUnlimited;  // of prompts and outputs; refused while it is used up
};

// Immutable: a reload makes a new one and hands it over whole.
struct TenantPolicies {
  TenantPolicy others;  // of tenants that have no policy of their own
  absl::flat_hash_map<std::string, TenantPolicy> named;

  const TenantPolicy& For(absl::string_view tenant) const {
    const auto found = named.find(tenant);
    return found == named.end() ? others : found->second;
  }
};

}  // namespace weft
