// The rotary embedding's part of config.json.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "engine/model_config.h"
#include "engine/model_json.h"

namespace weft {

// Reads base and scaling of the rotary embedding into `config`, whose max_position_embeddings and head_dim are set,
// and rope_theta to what it is when left out.
// Both spellings: `rope_theta` + `rope_scaling`, and `rope_parameters` (transformers 5). Where both stand, the older
// one wins, as in transformers. Errors: InvalidArgument unsupported_rope.
absl::Status ReadRope(const std::string& file, const ModelJsonFields& fields, ModelConfig& config);

}  // namespace weft
