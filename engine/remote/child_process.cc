#include "engine/remote/child_process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"

namespace weft {
namespace {

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// In the child: nothing that allocates or locks, since other threads held what they held when it was forked.
[[noreturn]] void Exec(pid_t parent, char* const* command, char* const* environment, const std::vector<int>& fds,
                       int error_pipe) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it died in between
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);  // sockets of clients, say, are nothing to a worker
  for (const int fd : fds) fcntl(fd, F_SETFD, 0);
  execvpe(command[0], command, environment);
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(error_pipe, &error, sizeof error);
  _exit(1);
}

absl::StatusOr<std::unique_ptr<ChildProcess>> ForkAndExec(const ChildOptions& options) {
  std::vector<std::string> command = options.command;
  std::vector<std::string> environment = options.environment;
  const std::vector<char*> argv = Pointers(command), envp = Pointers(environment);
  std::array<int, 2> error_pipe{};
  if (pipe2(error_pipe.data(), O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) Exec(parent, argv.data(), envp.data(), options.inherited_fds, error_pipe[1]);
  const int fork_error = errno;
  close(error_pipe[1]);
  int error = 0;
  // Closed by a successful exec.
  const bool failed = pid > 0 && read(error_pipe[0], &error, sizeof error) == sizeof error;
  close(error_pipe[0]);
  if (pid < 0) return absl::ErrnoToStatus(fork_error, "fork");
  auto child = std::make_unique<ChildProcess>(pid);
  if (failed) return absl::ErrnoToStatus(error, absl::StrCat("can't run ", command.front()));
  return child;
}

}  // namespace

ChildProcess::ChildProcess(pid_t pid) : pid_(pid), pid_fd_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}

ChildProcess::~ChildProcess() {
  Kill();
  AwaitEnd(absl::InfiniteDuration());
  if (pid_fd_ >= 0) close(pid_fd_);
}

void ChildProcess::Kill() {
  absl::MutexLock lock(&mutex_);
  // Not reaped: the number is still its own, and that of its group, which what a wrapper has started is in too.
  if (!end_.has_value()) kill(-pid_, SIGKILL);
  if (!end_.has_value()) kill(pid_, SIGKILL);  // before it has made the group
}

std::optional<int> ChildProcess::AwaitEnd(absl::Duration timeout) {
  pollfd ended{.fd = pid_fd_, .events = POLLIN, .revents = 0};
  const int64_t milliseconds = std::clamp<int64_t>(absl::ToInt64Milliseconds(timeout), 0, INT_MAX);
  const bool for_ever = timeout == absl::InfiniteDuration();
  while (pid_fd_ >= 0 && poll(&ended, 1, for_ever ? -1 : static_cast<int>(milliseconds)) < 0 && errno == EINTR) {
  }
  absl::MutexLock lock(&mutex_);
  int status = 0;
  if (!end_.has_value() && waitpid(pid_, &status, for_ever ? 0 : WNOHANG) == pid_) end_ = status;
  return end_;
}

ChildStarter::ChildStarter() {
  thread_ = std::thread([this] {
    while (std::optional<std::function<void()>> job = jobs_.Pop()) (*job)();
  });
}

ChildStarter::~ChildStarter() {
  jobs_.Close();
  thread_.join();
}

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildStarter::Start(const ChildOptions& options) {
  absl::StatusOr<std::unique_ptr<ChildProcess>> child;
  absl::Notification done;
  jobs_.Push([&] {
    child = ForkAndExec(options);
    done.Notify();
  });
  done.WaitForNotification();
  return child;
}

}  // namespace weft
