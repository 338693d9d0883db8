#include "server/worker.h"

#include <unistd.h>

#include <csignal>
#include <exception>
#include <iostream>
#include <map>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "engine/remote/worker_group.h"
#include "engine/remote/worker_process.h"
#include "server/exit_status.h"
#include "server/logging.h"
#include "server/machine.h"
#include "server/process_limits.h"
#include "server/version.h"
#include "server/worker_replicas.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

constexpr char kDescription[] =
    "Computes a share of a model for a `weft serve` on another host. A server starts the workers on its own host "
    "itself.\n"
    "On each other host run one, with the number of that host; it joins the server whenever that has work for it.";

constexpr char kTokenVariable[] = "WEFT_WORKER_TOKEN";

constexpr int kDefaultPort = 9100;
constexpr int kMaxReplicas = 16;  // as `weft serve` has it
constexpr absl::Duration kFirstWait = absl::Milliseconds(200);
constexpr absl::Duration kLongestWait = absl::Seconds(10);
constexpr absl::Duration kLongLife = absl::Seconds(30);  // after which waiting begins anew

// What LeaderWorkerSet tells its pods.
struct Defaults {
  std::string coordinator;
  int node_rank = 0;
  int num_nodes = 0;
};

absl::StatusOr<int> ReadNumber(const std::map<std::string, std::string>& variables, const std::string& name) {
  const auto found = variables.find(name);
  int number = 0;
  if (found == variables.end()) return number;
  if (absl::SimpleAtoi(found->second, &number)) return number;
  return absl::InvalidArgumentError(absl::StrCat(name, ": '", found->second, "' is not a number"));
}

absl::StatusOr<Defaults> ReadDefaults(const std::map<std::string, std::string>& variables) {
  Defaults defaults;
  const auto leader = variables.find("LWS_LEADER_ADDRESS");
  if (leader != variables.end()) defaults.coordinator = absl::StrCat(leader->second, ":", kDefaultPort);
  const absl::StatusOr<int> node_rank = ReadNumber(variables, "LWS_WORKER_INDEX");
  const absl::StatusOr<int> num_nodes = ReadNumber(variables, "LWS_GROUP_SIZE");
  if (!node_rank.ok()) return node_rank.status();
  if (!num_nodes.ok()) return num_nodes.status();
  defaults.node_rank = *node_rank;
  defaults.num_nodes = *num_nodes;
  return defaults;
}

std::map<std::string, std::string> ToMap(const std::vector<std::string>& environment) {
  std::map<std::string, std::string> variables;
  for (const std::string& entry : environment) {
    const size_t equals = std::min(entry.find('='), entry.size());
    variables[entry.substr(0, equals)] = entry.substr(std::min(equals + 1, entry.size()));
  }
  return variables;
}

absl::Status Check(const WorkerProcessOptions& options) {
  const auto refuse = [](absl::string_view what) { return absl::InvalidArgumentError(what); };
  if (options.coordinator.empty()) return refuse("--coordinator: host:port of the server is missing");
  if (!options.token.empty()) return absl::OkStatus();
  if (absl::StartsWith(options.coordinator, "unix:")) {
    return refuse("--coordinator: workers on the server's host are started by the server");
  }
  if (options.num_nodes < 2) return refuse("--num-nodes: hosts of the server's engine, at least 2");
  if (options.node_rank < 1 || options.node_rank >= options.num_nodes) {
    return refuse(absl::StrCat("--node-rank: ", options.node_rank, " is not in 1 .. ", options.num_nodes - 1,
                               "; 0 is the server's own host"));
  }
  const TlsFiles& tls = options.tls;
  if (tls.certificate.empty() || tls.key.empty() || tls.authority.empty()) {
    return refuse("--tls-cert, --tls-key and --tls-ca: hosts talk over mutual TLS, which needs all three");
  }
  return absl::OkStatus();
}

bool IsForGood(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsPermissionDenied(status) || absl::IsInvalidArgument(status);
}

absl::Status ServeOnce(const WorkerProcessOptions& options) {
  try {
    return ServeAsWorker(options);
  } catch (const std::exception&) {  // memory that a model's own numbers ask for
    return absl::ResourceExhaustedError("ran out of memory");
  }
}

// Whoever watches over this host's worker starts it again.
void EndStuckProcess() {
  spdlog::error("ranks compute on after their link to the server has ended: the process ends");
  _exit(kExitEngineDied);
}

// Of a host's worker: one engine's life after another.
int ServeForEver(const WorkerProcessOptions& options) {
  boost::asio::io_context loop;
  absl::Duration wait = kFirstWait;
  for (;;) {
    const absl::Time start = absl::Now();
    const absl::Status status = ServeOnce(options);
    spdlog::warn("{}", std::string(status.message()));
    if (IsForGood(status)) return kExitConfig;
    if (absl::Now() - start > kLongLife) wait = kFirstWait;
    boost::asio::steady_timer(loop, absl::ToChronoMilliseconds(wait)).wait();
    wait = std::min(wait * 2, kLongestWait);
  }
}

}  // namespace

int WorkerMain(const std::vector<std::string>& args, const std::vector<std::string>& environment) {
  const std::map<std::string, std::string> variables = ToMap(environment);
  const absl::StatusOr<Defaults> defaults = ReadDefaults(variables);
  const absl::StatusOr<int> num_sharing = ReadNumber(variables, kSharingVariable);
  for (const absl::Status& status : {defaults.status(), num_sharing.status()}) {
    if (status.ok()) continue;
    std::cerr << "weft worker: " << status.message() << "\n";
    return kExitConfig;
  }
  WorkerProcessOptions options{.coordinator = defaults->coordinator,
                               .version = std::string(Version()),
                               .token = {},
                               .node_rank = defaults->node_rank,
                               .num_nodes = defaults->num_nodes,
                               .num_sharing = std::max(1, *num_sharing),
                               .address = {},
                               .tls = {},
                               .usable_memory_bytes = 0,
                               .on_stuck = EndStuckProcess};
  int num_replicas = 1;
  LogOptions log;
  CLI::App app(kDescription, "weft worker");
  app.add_option("--coordinator", options.coordinator,
                 "host:port that `weft serve --coordinator` listens on. Default: LWS_LEADER_ADDRESS, port 9100");
  app.add_option("--node-rank", options.node_rank, "Number of this host, from 1. Default: LWS_WORKER_INDEX");
  app.add_option("--num-nodes", options.num_nodes,
                 "Hosts of the engine, the server's among them. Default: LWS_GROUP_SIZE");
  app.add_option("--replicas", num_replicas,
                 "As many as the server has: each gets a process, and an equal part of this host's cores and memory. "
                 "Default: 1")
      ->check(CLI::Range(1, kMaxReplicas));
  app.add_option("--address", options.address,
                 "Address of this host, as the others reach it. Default: that by which it reaches the server");
  app.add_option("--tls-cert", options.tls.certificate, "PEM file with this host's certificate chain");
  app.add_option("--tls-key", options.tls.key, "PEM file with its private key");
  app.add_option("--tls-ca", options.tls.authority, "PEM file with the authority that signed the server's certificate");
  app.add_option("--log-level", log.level, "trace, debug, info, warn or error");
  app.add_option("--log-format", log.format, "text or json");
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  const auto token = variables.find(kTokenVariable);
  if (token != variables.end()) options.token = token->second;
  if (const absl::Status status = Check(options); !status.ok()) {
    std::cerr << "weft worker: " << status.message() << "\n";
    return kExitConfig;
  }
  SetProcessLimits();
  SetUpLogging(log);
  if (options.token.empty()) {
    if (num_replicas > 1 && *num_sharing == 0) ServeReplicas(num_replicas, args, environment);
    options.usable_memory_bytes = UsableMemory() / options.num_sharing;
    return ServeForEver(options);
  }
  // The server says what went wrong, and it alone decides what comes next.
  return absl::IsUnavailable(ServeOnce(options)) ? kWorkerLinkLost : kExitEngineDied;
}

}  // namespace weft
