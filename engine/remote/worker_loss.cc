// The part of WorkerGroup that says why a worker is late, slow or lost, and whether what it computed may be to blame.
#include <sys/wait.h>

#include <csignal>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "engine/remote/worker_group.h"

namespace weft {
namespace {

// A link ends with the process behind it, which the system then has to say.
constexpr absl::Duration kExitIsKnown = absl::Milliseconds(500);
// Workers are heard of four times as often.
constexpr absl::Duration kSilence = absl::Seconds(1);
// A worker that loads is heard of all the time; one that isn't for so long has no chance.
constexpr absl::Duration kSilentWhileLoading = absl::Seconds(60);

absl::Status LinkLost(const std::string& who) { return absl::UnavailableError(absl::StrCat(who, ": its link ended")); }

// Killed from outside, or by what it computed.
absl::Status StatusOfEnd(int end, const std::string& who) {
  if (WIFEXITED(end)) {
    const int status = WEXITSTATUS(end);
    if (status == kWorkerLinkLost) return LinkLost(who);
    return absl::InternalError(absl::StrCat(who, " exited with status ", status));
  }
  const int signal = WTERMSIG(end);
  const std::string what = absl::StrCat(who, " was ended by signal ", signal, " (", strsignal(signal), ")");
  for (const int by_itself : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGTRAP}) {
    if (signal == by_itself) return absl::InternalError(what);
  }
  return absl::UnavailableError(what);
}

}  // namespace

absl::Status WorkerGroup::WhyLate(const Worker& worker, absl::Time join_deadline) const {
  const absl::Time now = absl::Now();
  if (worker.phase == Phase::kExpected) {
    const std::optional<int> end =
        worker.process == nullptr ? std::nullopt : worker.process->AwaitEnd(absl::ZeroDuration());
    if (end.has_value()) return StatusOfEnd(*end, NameOf(worker));
    if (now < join_deadline) return absl::OkStatus();
    return absl::UnavailableError(
        absl::StrCat(NameOf(worker), " has not joined within ", absl::FormatDuration(context_.join_timeout)));
  }
  if (now - worker.heard <= kSilentWhileLoading) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(NameOf(worker), " has not been heard of for ",
                                             absl::FormatDuration(kSilentWhileLoading), " while it loaded"));
}

absl::Status WorkerGroup::WhyLost(size_t index) {
  const Worker& worker = workers_[index];
  std::string who;
  ChildProcess* process = nullptr;  // lives as long as the group
  {
    absl::MutexLock lock(&mutex_);
    who = NameOf(worker);
    process = worker.process.get();
  }
  if (process != nullptr) {
    const std::optional<int> end = process->AwaitEnd(kExitIsKnown);
    if (end.has_value()) return StatusOfEnd(*end, who);
  }
  const Diagnosis diagnosis = Diagnose();
  const std::string what = absl::StrCat(who, ": its link ended (", diagnosis.text, ")");
  // Of another host nobody tells how the process ended. Where it was heard of until now, the host was not cut off.
  const bool is_elsewhere = worker.placed->node_rank > 0;
  if (is_elsewhere && !diagnosis.someone_is_silent) return absl::InternalError(what);
  return absl::UnavailableError(what);
}

std::string WorkerGroup::NameOf(const Worker& worker) const {
  const std::string ranks = RanksOf(*worker.placed);
  if (worker.placed->node_rank > 0) return absl::StrCat(ranks, " (node ", worker.placed->node_rank, ")");
  return absl::StrCat(ranks, " (process ", worker.process == nullptr ? 0 : worker.process->pid(), ")");
}

// In its own words.
absl::Status WorkerGroup::WhyFailed(const PlacedWorker& placed, const v1::Failed& failed) {
  const bool is_code = failed.code() > 0 && failed.code() <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  const auto code = is_code ? static_cast<absl::StatusCode>(failed.code()) : absl::StatusCode::kInternal;
  const std::string who = failed.rank() < 0 ? RanksOf(placed) : absl::StrCat("rank ", failed.rank());
  const std::string where = failed.step() < 0 ? "" : absl::StrCat(" in step ", failed.step());
  return absl::Status(code, absl::StrCat(who, where, ": ", failed.message()));
}

WorkerGroup::Diagnosis WorkerGroup::Diagnose() const {
  absl::MutexLock lock(&mutex_);
  Diagnosis diagnosis;
  std::vector<std::string> lines;
  const absl::Time now = absl::Now();
  for (const Worker& worker : workers_) {
    if (worker.phase == Phase::kExpected) {
      lines.push_back(absl::StrCat(NameOf(worker), " has not joined"));
      continue;
    }
    if (now - worker.heard > kSilence) {
      diagnosis.someone_is_silent = true;
      lines.push_back(absl::StrFormat("%s has not been heard of for %.1f s", NameOf(worker),
                                      absl::ToDoubleSeconds(now - worker.heard)));
      continue;
    }
    if (worker.activities.empty()) lines.push_back(absl::StrCat(NameOf(worker), " has not begun"));
    for (const RankActivity& activity : worker.activities) lines.push_back(weft::Describe(activity));
  }
  diagnosis.text = absl::StrJoin(lines, "; ");
  return diagnosis;
}

}  // namespace weft
