// `weft worker`.
#pragma once

#include <string>
#include <vector>

namespace weft {

// The exit status of the process. environment: NAME=value.
int WorkerMain(const std::vector<std::string>& args, const std::vector<std::string>& environment);

}  // namespace weft
