// DATA PARALLELISM: replicas pull from the one fair queue when they have room, and what a dead one ran goes on
// elsewhere.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/fair_queue.h"
#include "scheduler/prefix_directory.h"
#include "scheduler/request.h"
#include "scheduler/scheduler.h"

namespace weft {

struct DispatcherOptions {
  int num_replicas = 1;  // 1 .. PrefixDirectory::kMaxReplicas
  // A request waits so long at most for a replica that has its prefix, and no longer than computing it would take.
  absl::Duration max_affinity_wait = absl::Milliseconds(200);
};

// How a request ends that is suspected of killing replicas, see Dispatcher.
absl::Status QuarantinedError();
bool IsQuarantined(const absl::Status& status);

// Binds late: a request belongs to no replica before that one can start it, so no replica idles while work waits, but
// for the bounded moment that a prefix is worth.
//
// Of a request that was in a step when its replica died nobody knows whether it killed it. So it becomes a suspect: it
// goes on elsewhere, and until it has got past the place, beside no other suspect. If that replica dies too, with the
// suspect in a step, the suspect ends in an error ("quarantined"), and the others go on as suspects. So who kills two
// replicas at one place is quarantined, and nobody is in a step of more than kMaxDeaths that die by
// themselves.
//
// Who was killed from outside had nobody in its steps to blame, unless that happens more than kMaxKills times at one
// place of a request: one that takes so much memory that the system kills its worker looks like that.
//
// Thread-safe. Shared by the replicas of a server, and outlives them.
class Dispatcher {
 public:
  static constexpr int kMaxDeaths = 3;
  static constexpr int kMaxKills = 3;

  // Queue and clock outlive the dispatcher.
  Dispatcher(const DispatcherOptions& options, FairQueue& queue, const Clock& clock);

  FairQueue& queue() { return queue_; }
  bool tracks_prefixes() const { return options_.num_replicas > 1; }
  const PrefixDirectory& directory() const { return directory_; }

  struct Pulled {
    std::unique_ptr<Request> request;                // null: nothing to start now
    uint64_t version = 0;                            // of the queue, see WaitForChange
    absl::Time look_again = absl::InfiniteFuture();  // somebody waits for another replica, or at all, until then
  };
  // What the replica's scheduler can start now.
  Pulled Pull(int replica, Scheduler& scheduler);

  // Some replica makes room for it, and others may pass it.
  bool IsPromised(int64_t request_id) const;

  // After a step: what the replica's cache has and has not any more.
  void TellCache(int replica, const CacheChanges& changes);

  // The replica died, by itself or killed from outside. What it ran goes back to its place in the queue.
  void GiveBackFromDead(int replica, std::vector<Scheduler::Survivor> survivors, bool from_outside);

 private:
  // A replica has preempted others for this request, and will take it when their steps have ended.
  struct Promise {
    int replica = 0;
    absl::Time until;
  };

  Verdict Judge(int replica, Scheduler& scheduler, const Request& request, bool may_preempt, absl::Time now);
  bool IsWorthWaiting(int replica, const Request& request, const Scheduler& scheduler, absl::Time now,
                      absl::Time& look_again) const;

  const DispatcherOptions options_;
  FairQueue& queue_;
  const Clock& clock_;
  PrefixDirectory directory_;
  mutable absl::Mutex mutex_;  // taken under the queue's, never the other way round
  absl::flat_hash_map<int64_t, Promise> promises_ ABSL_GUARDED_BY(mutex_);  // by request
};

}  // namespace weft
