// Processes that this one starts, and that end with it.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/channel.h"

namespace weft {

struct ChildOptions {
  std::vector<std::string> command;      // a path, then its arguments
  std::vector<std::string> environment;  // all of it, "NAME=value"
  std::vector<int> inherited_fds;        // open in the child too, with the same numbers
};

// Killed with its handle, and reaped. Thread-safe.
class ChildProcess {
 public:
  explicit ChildProcess(pid_t pid);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  void Kill();

  // How it ended, as waitpid has it; none: it hasn't within `timeout`.
  std::optional<int> AwaitEnd(absl::Duration timeout);

 private:
  const pid_t pid_;
  const int pid_fd_;  // readable once it has ended; -1: the system has none, and only waits without a bound wait
  absl::Mutex mutex_;
  std::optional<int> end_ ABSL_GUARDED_BY(mutex_);
};

// Starts children on a thread of its own: the system ends a child with the *thread* that started it.
class ChildStarter {
 public:
  ChildStarter();
  ~ChildStarter();  // which ends all children

  // The child is in a process group of its own, so that a terminal's signals are this process's to pass on, and gets
  // SIGKILL when this process ends in any way. Errors: the system's own, when the command can't be run. Thread-safe.
  absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const ChildOptions& options);

 private:
  Channel<std::function<void()>> jobs_;
  std::thread thread_;
};

}  // namespace weft
