// From settings and a model's sizes to engines.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/engine_setup.h"
#include "engine/model_config.h"
#include "engine/model_dir.h"
#include "server/config.h"
#include "server/device_choice.h"

namespace weft {

struct EnginePlan {
  EngineSetup setup;
  WorkerKind workers = WorkerKind::kThreads;
};

// What the settings come to for this model on this machine; nothing is read or allocated for it. Error: InvalidArgument
// that names the setting, with arithmetic, for what doesn't fit the model or the machine.
absl::StatusOr<EnginePlan> PlanEngines(const Config& config, const ModelDir& files, const ModelConfig& model,
                                       std::vector<std::string>& warnings);

// Ready to open them: the weights are loaded where ranks are threads; processes load them when an engine opens.
absl::StatusOr<std::unique_ptr<EngineSource>> OpenEngineSource(const Config& config, const ModelConfig& model,
                                                               const EnginePlan& plan);

}  // namespace weft
