// Who asks, and who pays: one rule for both protocols.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "server/auth.h"

namespace weft {

// By which a trusted gateway names the tenant, as HTTP header and as gRPC metadata; llm-d's name for it.
inline constexpr absl::string_view kFairnessIdHeader = "x-llm-d-inference-fairness-id";

// What a request says of who it is.
struct Credentials {
  std::vector<absl::string_view> authorization;  // every such header
  std::vector<absl::string_view> fairness_ids;   // every kFairnessIdHeader
};

// Thread-safe: keys may change while requests come in.
class Authenticator {
 public:
  // trust_gateway: kFairnessIdHeader counts. It takes the place of the key's tenant, but not of the key.
  explicit Authenticator(bool trust_gateway = false) : trust_gateway_(trust_gateway) {}

  // From now on one of these keys is asked for. What was let in before goes on.
  void SetKeys(std::shared_ptr<const KeyStore> keys) {
    absl::MutexLock lock(&mutex_);
    keys_ = std::move(keys);
  }

  // Where neither key nor gateway names a tenant, it is "default". Errors: Unauthenticated, invalid_api_key, the same
  // for whatever is wrong with the key; InvalidArgument, out_of_range for a gateway's name that is none, or two of
  // them.
  absl::StatusOr<std::string> TenantOf(const Credentials& credentials) const;

 private:
  const bool trust_gateway_;
  mutable absl::Mutex mutex_;  // held only to copy
  // Shared with requests that look into it just now. Null: no key is asked for.
  std::shared_ptr<const KeyStore> keys_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
