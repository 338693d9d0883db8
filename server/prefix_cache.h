// What an operator may choose about the prefix cache.
#pragma once

namespace weft {

// Who shares what was computed for prompts that begin alike.
enum class PrefixCache { kTenant, kAll, kOff };

}  // namespace weft
