// The rotary table of a model: every scaling rule becomes data here, so that no kernel knows one.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model_config.h"

namespace weft {

// [max_positions, head_dim]: for each position cos of head_dim / 2 angles, then sin, both times yarn's attention
// factor. Computed in float where transformers computes in float, so that even far positions agree with it.
//
// kDynamic: transformers lets the frequencies grow with the sequence, so that keys in its cache were turned by other
// frequencies than the query that meets them, and a token depends on how its prompt was cut. Here they are those of a
// sequence of `max_positions` tokens, for every token: the trained ones when max_positions is within
// max_position_embeddings, and else what transformers computes for a prompt of exactly that length.
std::vector<float> MakeCosSinTable(const ModelConfig& config, int64_t max_positions);

}  // namespace weft
