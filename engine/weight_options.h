// What a user may choose about weights. Apart from weights.h, so that whoever only chooses sees no tensor.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/load_progress.h"
#include "kernels/dtype.h"

namespace weft {

enum class LoadFormat { kSafetensors, kDummy };

struct WeightOptions {
  LoadFormat format = LoadFormat::kSafetensors;
  // How linears are stored; none: as the checkpoint has them. With kI8 the embedding, and with it a tied head, stays as
  // the checkpoint has it: a lookup gains no speed, and the head decides every token. So do routers, which are small
  // and decide what is computed at all.
  std::optional<DType> dtype;
  uint64_t dummy_seed = 0;
  LoadObserver observer;  // is told while they load
};

}  // namespace weft
