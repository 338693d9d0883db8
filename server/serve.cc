#include "server/serve.h"

#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <iostream>

#include "absl/status/statusor.h"
#include "server/config_flags.h"
#include "server/exit_status.h"
#include "server/logging.h"
#include "server/server.h"

namespace weft {
namespace {

bool AsksForHelp(const std::vector<std::string>& args) {
  return std::any_of(args.begin(), args.end(),
                     [](const std::string& arg) { return arg == "--help" || arg == "-h" || arg == "help"; });
}

// As many files as the system lets us have, for connections. No core files: they would hold prompts. No death by a
// reader that closes its end.
void SetProcessLimits() {
  rlimit files = {};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  const rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  std::signal(SIGPIPE, SIG_IGN);
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
