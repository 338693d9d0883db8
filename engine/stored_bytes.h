// What a rank's weights take of its device's memory.
#pragma once

#include <cstdint>

#include "engine/weights.h"

namespace weft {

int64_t StoredBytes(const ModelWeights& weights);

}  // namespace weft
