#include "scheduler/dispatcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"

namespace weft {
namespace {

constexpr absl::string_view kQuarantinedUrl = "weft/quarantined";
constexpr absl::Duration kPromiseTime = absl::Seconds(1);  // longer than two steps should take

// It was killed from outside with this request in a step; but not often at this place.
bool MayBeChance(Request& request) {
  Progress& progress = request.progress;
  if (KnownTokens(request) > std::exchange(progress.killed_at, KnownTokens(request))) progress.num_kills = 0;
  return ++progress.num_kills <= Dispatcher::kMaxKills;
}

}  // namespace

absl::Status QuarantinedError() {
  absl::Status status = absl::InternalError("replicas died while they ran this request, so it is not tried again");
  status.SetPayload(kQuarantinedUrl, absl::Cord());
  return status;
}

bool IsQuarantined(const absl::Status& status) { return status.GetPayload(kQuarantinedUrl).has_value(); }

Dispatcher::Dispatcher(const DispatcherOptions& options, FairQueue& queue, const Clock& clock)
    : options_(options), queue_(queue), clock_(clock) {
  queue_.SetNumReplicas(options.num_replicas);
}

Dispatcher::Pulled Dispatcher::Pull(int replica, Scheduler& scheduler) {
  const absl::Time now = clock_.Now();
  absl::Time look_again = absl::InfiniteFuture();
  bool may_preempt = true;  // but nobody for one that overtakes another
  FairQueue::Pulled pulled = queue_.Pull([&](const Request& request) {
    if (tracks_prefixes() && IsWorthWaiting(replica, request, scheduler, now, look_again)) return Verdict::kPass;
    const Verdict verdict = tracks_prefixes() ? Judge(replica, scheduler, request, may_preempt, now)
                                              : scheduler.Judge(request, may_preempt);
    if (verdict == Verdict::kTooLarge) may_preempt = false;
    return verdict;
  });
  return {std::move(pulled.request), pulled.version, std::min(look_again, pulled.next_deadline)};
}

// Of several that are full only one makes room for a request; the others go on with what comes behind it.
Verdict Dispatcher::Judge(int replica, Scheduler& scheduler, const Request& request, bool may_preempt, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  const auto promise = promises_.find(request.id);
  const bool is_promised = promise != promises_.end() && promise->second.replica != replica &&
                           now < promise->second.until && promise->second.until - now <= kPromiseTime;
  const Verdict verdict = scheduler.Judge(request, may_preempt && !is_promised);
  if (verdict == Verdict::kTake) promises_.erase(request.id);
  // One that nobody may overtake any more holds up one replica, not all.
  const bool must_be_next =
      verdict == Verdict::kTooLarge && request.progress.num_overtakers >= FairQueue::kMaxOvertakers && !is_promised;
  if (scheduler.makes_room() || must_be_next) {
    absl::erase_if(promises_, [now](const auto& entry) { return entry.second.until <= now; });
    promises_[request.id] = {replica, now + kPromiseTime};
  }
  return verdict != Verdict::kTake && is_promised ? Verdict::kPass : verdict;
}

// Another replica holds more of its beginning, and computing that here would take longer than it has waited since its
// first turn; or, for a replica that would idle meanwhile, since it was queued.
bool Dispatcher::IsWorthWaiting(int replica, const Request& request, const Scheduler& scheduler, absl::Time now,
                                absl::Time& look_again) const {
  const absl::Time since = scheduler.HasWork() ? request.offered_at : request.queued_at;
  if (request.prefix_keys.empty() || since > now) return false;  // the clock jumped
  const absl::Time latest = since + options_.max_affinity_wait;
  if (now >= latest) return false;
  const int elsewhere = directory_.LongestElsewhere(replica, request.prefix_keys);
  const int more = std::min(elsewhere, scheduler.NumShareable(request)) - scheduler.NumCachedBlocks(request);
  if (more <= 0) return false;
  absl::Time until = latest;
  const double tokens_a_second = queue_.service_rate().PromptTokensPerSecond();
  if (tokens_a_second > 0) {
    const double seconds = static_cast<double>(more) * scheduler.block_size() / tokens_a_second;
    until = std::min(until, since + absl::Seconds(seconds));
  }
  if (now >= until) return false;
  look_again = std::min(look_again, until);
  return true;
}

bool Dispatcher::IsPromised(int64_t request_id) const {
  absl::MutexLock lock(&mutex_);
  return promises_.contains(request_id);
}

void Dispatcher::TellCache(int replica, const CacheChanges& changes) {
  if (!changes.changes.empty()) directory_.Apply(replica, changes);
}

void Dispatcher::GiveBackFromDead(int replica, std::vector<Scheduler::Survivor> survivors, bool from_outside) {
  queue_.service_rate().Forget(replica);
  {
    absl::MutexLock lock(&mutex_);
    absl::erase_if(promises_, [replica](const auto& entry) { return entry.second.replica == replica; });
  }
  for (Scheduler::Survivor& survivor : survivors) {
    std::unique_ptr<Request>& request = survivor.request;
    Progress& progress = request->progress;
    if (survivor.was_in_step && !(from_outside && MayBeChance(*request))) {
      const bool is_suspect = progress.suspect_until.has_value();
      if (++progress.num_deaths >= kMaxDeaths || is_suspect) {
        queue_.Leave(*request->account);
        request->sink->Finish({.reason = FinishReason::kError, .status = QuarantinedError()});
        continue;
      }
      progress.suspect_until = KnownTokens(*request);
    }
    queue_.GiveBack(std::move(request));
  }
}

}  // namespace weft
