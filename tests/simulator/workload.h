// The clients: what they ask for, and what the operator grants them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/tenant_policy.h"
#include "tests/simulator/plan.h"
#include "tests/simulator/random.h"
#include "tests/simulator/sim_request.h"

namespace weft {

class Workload {
 public:
  // The plan outlives the workload.
  Workload(const Plan& plan, uint64_t seed);

  static std::string TenantName(int tenant);

  // One request of one or more choices; the index of the first among all is `first`.
  std::vector<SimRequest> DrawGroup(int first);
  std::shared_ptr<const TenantPolicies> DrawPolicies();

 private:
  std::vector<int32_t> DrawPrompt();
  void DrawScope(SimRequest& request);
  void DrawTrouble(SimRequest& request);
  TenantPolicy DrawPolicy();

  const Plan& plan_;
  Random random_;
  std::vector<std::vector<int32_t>> families_;  // of prompts: how they begin
};

}  // namespace weft
