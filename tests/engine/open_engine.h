// One engine of a model, for tests that need no second.
#pragma once

#include <memory>

#include "engine/local_engine.h"
#include "kernels/status_macros.h"

namespace weft {

inline absl::StatusOr<std::unique_ptr<Engine>> OpenOneEngine(const ModelConfig& config, const EngineSetup& setup) {
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalEngines> engines, LocalEngines::Load(config, setup, 1));
  return engines->Open(0);
}

}  // namespace weft
