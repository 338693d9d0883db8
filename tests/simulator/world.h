// One simulation: the production queue, dispatcher, replicas and schedulers, in one thread and in virtual time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <vector>

#include "absl/functional/function_ref.h"
#include "scheduler/dispatcher.h"
#include "scheduler/replica.h"
#include "tests/simulator/blame.h"
#include "tests/simulator/giving_way.h"
#include "tests/simulator/ledger.h"
#include "tests/simulator/pacing.h"
#include "tests/simulator/random.h"
#include "tests/simulator/reader.h"
#include "tests/simulator/scene.h"
#include "tests/simulator/sharing.h"
#include "tests/simulator/sim_engine.h"
#include "tests/simulator/whereabouts.h"

namespace weft {

// Of one run or of many.
struct Totals {
  int64_t num_seeds = 0;
  int64_t num_events = 0;
  int64_t num_steps = 0;
  int64_t num_requests = 0;               // pushed
  int64_t num_refused = 0;                // groups, for whatever reason
  std::array<int64_t, 4> num_finished{};  // by FinishReason
  std::array<int64_t, kNumPreemptionReasons> num_preemptions{};
  int64_t num_deaths = 0;  // of replicas
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;
  int64_t virtual_us = 0;
  uint64_t digest = 0;  // of all that happened

  void Add(const Totals& other);
};

// A discrete-event loop. Every event is followed by every check; a violation ends the process.
class World {
 public:
  // Metrics outlive the world; nothing depends on them.
  World(const Plan& plan, Metrics& metrics, bool prints);

  // Until everything has finished; first the faults, then the quiet in which it must.
  Totals Run();

 private:
  enum class Kind {
    kArrive,
    kPush,
    kCancel,
    kLeave,
    kStopString,
    kRead,
    kTurn,
    kRestart,
    kReload,
    kJump,
    kClose,
    kDropAll,
    kGiveUp,
    kQuiet
  };
  struct Event {
    int64_t at_us = 0;
    uint64_t order = 0;  // of equals, the one that was scheduled first
    Kind kind = Kind::kTurn;
    size_t index = 0;   // of a group, request or replica
    uint64_t turn = 0;  // kTurn: of the replica; it is void if another came in between
    bool operator>(const Event& other) const {
      return at_us != other.at_us ? at_us > other.at_us : order > other.order;
    }
  };
  // The part of a replica's loop that comes next.
  enum class Phase { kPull, kSubmit, kCollect, kPublish, kIdle, kDrained, kDead };
  struct SimReplica {
    std::unique_ptr<Replica> replica;  // null: dead
    SimEngine* engine = nullptr;       // the replica's
    std::optional<Pacing> pacing;
    std::optional<GivingWay> giving_way;
    Phase phase = Phase::kPull;
    uint64_t turn = 0;
    bool wakes = false;  // it is idle, and its turn is scheduled because something changed
    bool restarts = false;
    int64_t looked_us = 0;  // for work
    int64_t num_steps = 0;  // committed
  };
  struct Group {
    size_t index = 0;
    std::vector<size_t> requests;
    std::optional<QueuePlaces> places;
    std::unique_ptr<Reader> reader;
    bool stops_reading = false;
  };

  void ScheduleAll();
  void Schedule(int64_t after_us, Kind kind, size_t index = 0, uint64_t turn = 0);
  void Handle(const Event& event);
  void Do(absl::FunctionRef<void()> part);
  void Settle();
  void CheckLiveness();
  void CheckEnd();

  // clients.cc
  void Arrive(size_t group);
  void PushGroup(size_t group);
  bool PushOne(Group& group, SimRequest& request);
  void Cancel(SimRequest& request);
  void Leave(size_t group);
  void SeeStopString(SimRequest& request);
  void DropAll();
  void CheckReaders();
  bool MustFit(const SimRequest& request) const;

  // replicas.cc
  void StartReplica(size_t index);
  void RunReplica(size_t index);
  void RunPhase(size_t index);
  void Pull(size_t index);
  void Submit(size_t index);
  void Collect(size_t index);
  void Publish(size_t index);
  void Bury(size_t index);
  void FailIfNoneIsLeft();
  void GiveUp();
  void WakeIdle();
  int64_t DelayBefore(const SimReplica& replica);
  SimEngine::Host::Fate Decide(size_t index, const Batch& batch, const std::vector<SimRequest*>& rows);
  StepFault DrawFault(const Batch& batch, const std::vector<SimRequest*>& rows);
  void AddStats(const Stats& stats);

  Scene scene_;
  Metrics& metrics_;
  Random random_;
  Workload workload_;
  Dispatcher dispatcher_;
  Whereabouts whereabouts_;
  Ledger ledger_;
  Blame blame_;
  Sharing sharing_;
  std::vector<Group> groups_;
  std::vector<TokenStream*> streams_;  // by request id; the readers'; null: it was not pushed
  std::vector<SimReplica> replicas_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  uint64_t next_order_ = 0;
  int num_restarts_left_ = 0;
  bool quiet_ = false;       // no more faults
  int64_t most_events_ = 0;  // by then all must have finished; set when it becomes quiet
  int64_t latest_us_ = 0;
  Totals totals_;
};

}  // namespace weft
