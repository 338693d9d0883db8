// A tokenizer for models that come without one.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "server/text/tokenizer.h"

namespace weft {

// Every byte is a token, the first 256; the others spell their number, so that whatever a model with random weights
// draws is text. InvalidArgument for a vocabulary of fewer than 256.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeStandInTokenizer(int32_t vocab_size);

}  // namespace weft
