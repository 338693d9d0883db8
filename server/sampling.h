// From a request's words to the scheduler's: what was left out takes the model's defaults, else the neutral value.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/batch.h"
#include "engine/model_config.h"
#include "scheduler/request.h"
#include "server/generate_request.h"

namespace weft {

// Requires CheckLimits(request).
SamplingParams MakeSampling(const GenerateRequest& request, const GenerationConfig& defaults, uint64_t seed);

// End-of-sequence ids unless the request ignores them, and its own, each once.
StopCriteria MakeStop(const GenerateRequest& request, const std::vector<int32_t>& eos_token_ids, int64_t max_tokens);

}  // namespace weft
