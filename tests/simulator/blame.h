// Follows which replicas died with which requests in a step, and checks who is blamed for it.
#pragma once

#include <vector>

#include "tests/simulator/scene.h"

namespace weft {

class Blame {
 public:
  explicit Blame(Scene& scene) : scene_(scene) {}

  // A replica died with these in its steps, none of which had ended; they have been given back or ended since.
  void OnDeath(const std::vector<SimRequest*>& in_steps, bool from_outside);
  // Before a step: suspects run apart.
  static void CheckStep(const std::vector<SimRequest*>& rows);
  // After each part of an event: errors have a reason.
  void CheckErrors();

 private:
  Scene& scene_;
  std::vector<const SimRequest*> quarantined_;  // in this part of the event
};

}  // namespace weft
