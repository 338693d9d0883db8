// The binary: picks the subcommand.

#include <unistd.h>

#include <iostream>
#include <string>
#include <vector>

#include "server/doctor.h"
#include "server/exit_status.h"
#include "server/manifest_file.h"
#include "server/nearest_name.h"
#include "server/serve.h"
#include "server/version.h"
#include "server/worker.h"

namespace {

constexpr char kUsage[] = R"(usage: weft COMMAND [ARGUMENTS]

  serve     serve a language model over HTTP and gRPC; weft serve --help tells all about it
  worker    compute a share of a model for a serve on another host
  doctor    look at this machine, and say what to mend before serving on it
  manifest  write down what the files of a model directory are, for weft serve --manifest
  version   say what this binary is
)";

const std::vector<std::string> kCommands = {"serve", "worker", "doctor", "manifest", "version", "help"};

std::vector<std::string> Environment() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);
  return variables;
}

int Run(const std::string& command, const std::vector<std::string>& args) {
  if (command == "serve") return weft::ServeMain(args, Environment());
  if (command == "worker") return weft::WorkerMain(args, Environment());
  if (command == "doctor") return weft::DoctorMain(std::cout);
  if (command == "manifest") return weft::ManifestMain(args, std::cout, std::cerr);
  if (command == "version" || command == "--version") {
    std::cout << "weft " << weft::Version() << " (" << weft::BuildInfo() << ")\n";
    return weft::kExitOk;
  }
  if (command == "help" || command == "--help" || command == "-h") {
    std::cout << kUsage;
    return weft::kExitOk;
  }
  if (command.empty()) {
    std::cerr << kUsage;
  } else {
    std::cerr << "weft: '" << command << "' is unknown; the nearest command is "
              << weft::NearestName(command, kCommands) << "\n";
  }
  return weft::kExitUsage;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty()) return Run("", {});
  return Run(words.front(), {words.begin() + 1, words.end()});
}
