// The process's log: lines on standard error, of text or JSON. Prompts, completions and keys are never logged.
#pragma once

#include "server/config.h"

namespace weft {

// Sets up spdlog's default logger, which only server/ uses. Once, before there are threads.
void SetUpLogging(const LogOptions& options);

}  // namespace weft
