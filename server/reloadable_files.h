// The files that may change while the server runs: API keys and tenants.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "scheduler/fair_queue.h"
#include "server/authenticator.h"
#include "server/metrics.h"

namespace weft {

// Each takes effect whole or not at all. Used by one thread; who asks whom it concerns may do so meanwhile.
class ReloadableFiles {
 public:
  // Empty: there is no such file. What is passed by reference outlives this.
  ReloadableFiles(std::string keys_file, std::string tenants_file, Authenticator& auth, FairQueue& queue,
                  Metrics& metrics);

  // For the start. Errors name setting, file and what is wrong there.
  absl::Status Load();

  // One that isn't valid leaves in force what was. Logs a line for each file, and counts it.
  void Reload();

 private:
  absl::Status LoadKeys();
  absl::Status LoadTenantPolicies();
  void Tell(const char* setting, const std::string& file, const absl::Status& status);

  const std::string keys_file_;
  const std::string tenants_file_;
  Authenticator& auth_;
  FairQueue& queue_;
  Metrics& metrics_;
};

}  // namespace weft
