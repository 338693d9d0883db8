// What weights come to, from sizes alone: nothing is read for it.
#pragma once

#include <cstdint>

#include "engine/model_config.h"
#include "engine/parallel_plan.h"
#include "engine/weight_options.h"
#include "kernels/dtype.h"

namespace weft {

// How a model's linears are stored; see WeightOptions::dtype.
struct StoredDTypes {
  DType linear = DType::kF32;
  DType exact = DType::kF32;  // embedding, tied head, routers: what isn't quantised
};

StoredDTypes StoredDTypesFor(const ModelConfig& config, const WeightOptions& options);

// Of one rank, as a device stores them, but for what its layout adds to fill up rows.
int64_t WeightBytes(const ModelConfig& config, const ParallelPlan& plan, const WeightOptions& options);

}  // namespace weft
