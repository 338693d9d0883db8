// The operator's file of tenants: JSON into TenantPolicies.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/tenant_policy.h"

namespace weft {

// An object with "default", for tenants that are not listed and for what a listed one leaves out, and "tenants", by
// name. Every field may be left out:
//
//   {"default": {"max_queued": 64},
//    "tenants": {"search": {"weight": 4, "priority": "high", "max_priority": "high", "tokens_per_minute": 100000}}}
//
//   weight             0.001 to 1000; 1    share of the service, beside the others that want some
//   priority           low, normal, high   of requests that don't ask for one; normal
//   max_priority       low, normal, high   that a request may ask for; normal
//   max_running        1 to 1e9; no cap    sequences that run at once, on all replicas together
//   max_queued         1 to 1e9; no cap    sequences in the queue
//   tokens_per_minute  1 to 1e12; no cap   of prompts and outputs
//
// Errors: InvalidArgument in one line that names the tenant and the field: whatever is unknown, given twice, of another
// type or out of range; a priority above max_priority; a name that no key could have; what isn't JSON.
absl::StatusOr<TenantPolicies> ParseTenants(absl::string_view text);

// The same from a file, which errors name too.
absl::StatusOr<TenantPolicies> LoadTenants(const std::string& path);

}  // namespace weft
