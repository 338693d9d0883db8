// What the front ends may use before a request is token ids: threads of their own each, memory together.
#pragma once

#include <cstdint>

namespace weft {

// Of each protocol.
inline constexpr int kPreparingThreads = 2;   // parse and tokenize what is to be generated
inline constexpr int kConvertingThreads = 1;  // serve Tokenize and Detokenize, which hold up nothing else
inline constexpr int kMaxPreparing = 1024;    // requests that wait for either

// Of both: all bodies and messages that are not tokens yet.
inline constexpr int64_t kMaxRequestBytes = int64_t{256} << 20;

}  // namespace weft
