#include "server/serve.h"

#include <algorithm>
#include <iostream>

#include "absl/status/statusor.h"
#include "server/config_flags.h"
#include "server/exit_status.h"
#include "server/logging.h"
#include "server/process_limits.h"
#include "server/server.h"

namespace weft {
namespace {

bool AsksForHelp(const std::vector<std::string>& args) {
  return std::any_of(args.begin(), args.end(),
                     [](const std::string& arg) { return arg == "--help" || arg == "-h" || arg == "help"; });
}

}  // namespace

int ServeMain(const std::vector<std::string>& args, const std::vector<std::string>& environment) {
  if (AsksForHelp(args)) {
    std::cout << ServeHelp();
    return kExitOk;
  }
  const absl::StatusOr<Config> config = ParseConfig(args, environment);
  if (!config.ok()) {
    std::cerr << "weft: " << config.status().message() << "\n";
    return kExitConfig;
  }
  SetProcessLimits();
  SetUpLogging(config->log);
  return Server(*config).Run();
}

}  // namespace weft
