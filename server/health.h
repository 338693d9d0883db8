// How the server is, as probes ask for it.
#pragma once

#include <string>

namespace weft {

enum class Health {
  kLoading,     // alive, not ready: the model is on its way
  kReady,       // takes work
  kRecovering,  // no replica is up, and at least one is being started again; what was accepted waits
  kDraining,    // finishes what it has, takes nothing new
  kDead,        // can't serve any more and wants a restart
};

struct HealthState {
  Health health = Health::kLoading;
  std::string detail;        // fixed text for people: "loading weights"; no paths
  double progress = 0;       // of loading, 0 to 1
  bool is_impaired = false;  // ready, but not with all that it should have; the detail says what is missing
};

}  // namespace weft
