#include "server/worker_replicas.h"

#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/channel.h"
#include "engine/remote/child_process.h"
#include "server/exit_status.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

constexpr std::chrono::seconds kBeforeNext(1);

// Returns the exit status of the one that will never do.
int ServeOne(const ChildOptions& options, ChildStarter& starter) {
  boost::asio::io_context loop;
  for (;;) {
    absl::StatusOr<std::unique_ptr<ChildProcess>> child = starter.Start(options);
    if (!child.ok()) {
      spdlog::error("no worker can be started: {}", std::string(child.status().message()));
      return kExitEngineDied;
    }
    const std::optional<int> end = (*child)->AwaitEnd(absl::InfiniteDuration());
    const bool has_exited = end.has_value() && WIFEXITED(*end);
    const int status = has_exited ? WEXITSTATUS(*end) : kExitEngineDied;
    if (status == kExitConfig || status == kExitUsage) return status;
    spdlog::warn("worker process {} has ended: another one is started", (*child)->pid());
    boost::asio::steady_timer(loop, kBeforeNext).wait();
  }
}

}  // namespace

void ServeReplicas(int num_replicas, const std::vector<std::string>& args,
                   const std::vector<std::string>& environment) {
  ChildOptions options{
      .command = {absl::StrCat("/proc/", getpid(), "/exe"), "worker"}, .environment = environment, .inherited_fds = {}};
  options.command.insert(options.command.end(), args.begin(), args.end());
  options.environment.push_back(absl::StrCat(kSharingVariable, "=", num_replicas));
  ChildStarter starter;
  Channel<int> statuses;
  std::vector<std::thread> threads;
  for (int i = 0; i < num_replicas; ++i) {
    threads.emplace_back([&] { statuses.Push(ServeOne(options, starter)); });
  }
  // The others wait for processes that go on; those end with this one.
  _exit(statuses.Pop().value_or(kExitEngineDied));
}

}  // namespace weft
