// `weft serve`.
#pragma once

#include <string>
#include <vector>

namespace weft {

// Serves until a signal or the engine's end. `args`: what follows `weft serve`; `environment` as of environ. Returns
// the exit status that ServeHelp() lists.
int ServeMain(const std::vector<std::string>& args, const std::vector<std::string>& environment);

}  // namespace weft
