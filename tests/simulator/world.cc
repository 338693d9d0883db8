#include "tests/simulator/world.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "kernels/check.h"

namespace weft {

void Totals::Add(const Totals& other) {
  num_seeds += other.num_seeds;
  num_events += other.num_events;
  num_steps += other.num_steps;
  num_requests += other.num_requests;
  num_refused += other.num_refused;
  for (size_t i = 0; i < num_finished.size(); ++i) num_finished[i] += other.num_finished[i];
  for (size_t i = 0; i < num_preemptions.size(); ++i) num_preemptions[i] += other.num_preemptions[i];
  num_deaths += other.num_deaths;
  num_prompt_tokens += other.num_prompt_tokens;
  num_cached_tokens += other.num_cached_tokens;
  virtual_us += other.virtual_us;
  digest = digest * 0x9ddfea08eb382d69u + other.digest;
}

World::World(const Plan& plan, Metrics& metrics, bool prints)
    : scene_(plan, prints),
      metrics_(metrics),
      random_(plan.seed),
      workload_(scene_.plan, random_.Next()),
      dispatcher_(plan.dispatcher, scene_.queue, scene_.clock),
      whereabouts_(scene_),
      ledger_(scene_),
      blame_(scene_),
      sharing_(scene_),
      replicas_(static_cast<size_t>(plan.num_replicas)),
      num_restarts_left_(plan.num_restarts) {
  scene_.dispatcher = &dispatcher_;
}

Totals World::Run() {
  ScheduleAll();
  while (true) {
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      scene_.clock.AdvanceTo(event.at_us);
      scene_.trace.set_now_us(event.at_us);
      ++totals_.num_events;
      Handle(event);
      WakeIdle();
      if (quiet_) CheckLiveness();
    }
    CHECK(scene_.live.empty(), "everything that was accepted has ended");
    if (scene_.queue.closed()) break;
    CheckEnd();
    scene_.queue.Close();
    WakeIdle();
  }
  for (const SimReplica& replica : replicas_) {
    CHECK(replica.phase == Phase::kDrained || replica.phase == Phase::kDead, "every replica has noticed the end");
    if (replica.replica != nullptr) AddStats(replica.replica->stats());
    if (replica.dead != nullptr) AddStats(replica.dead->stats());
  }
  CHECK(scene_.queue.drained(), "the queue is empty");
  CheckReaders();
  totals_.num_seeds = 1;
  totals_.virtual_us = scene_.clock.now_us();
  totals_.digest = scene_.trace.digest();
  return totals_;
}

void World::ScheduleAll() {
  const Plan& plan = scene_.plan;
  scene_.policies = workload_.DrawPolicies();
  scene_.queue.SetPolicies(scene_.policies);
  for (size_t i = 0; i < replicas_.size(); ++i) StartReplica(i);
  int64_t at_us = 0;
  groups_.resize(static_cast<size_t>(plan.clients.num_groups));
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (!random_.Chance(0.3)) at_us += random_.Between(0, 2 * plan.clients.mean_gap_us);  // otherwise at once
    Schedule(at_us, Kind::kArrive, i);
  }
  const int64_t end_us = at_us + plan.step_us * random_.Between(0, 50);
  for (int i = 0; i < plan.num_reloads; ++i) Schedule(random_.Between(0, end_us), Kind::kReload);
  for (int i = 0; i < plan.num_clock_jumps; ++i) Schedule(random_.Between(0, end_us), Kind::kJump);
  if (plan.shuts_down) {
    const int64_t close_us = random_.Between(0, end_us);
    Schedule(close_us, Kind::kClose);
    if (plan.drops_all) Schedule(close_us + random_.Between(0, 30) * plan.step_us, Kind::kDropAll);
  }
  if (plan.gives_up) Schedule(random_.Between(0, end_us), Kind::kGiveUp);
  Schedule(end_us, Kind::kQuiet);
}

void World::Schedule(int64_t after_us, Kind kind, size_t index, uint64_t turn) {
  events_.push({scene_.clock.now_us() + after_us, next_order_++, kind, index, turn});
}

void World::Handle(const Event& event) {
  switch (event.kind) {
    case Kind::kTurn:
      if (replicas_[event.index].turn == event.turn) RunReplica(event.index);
      return;
    case Kind::kArrive:
      return Do([&] { Arrive(event.index); });
    case Kind::kPush:
      return PushGroup(event.index);
    case Kind::kCancel:
      return Do([&] { Cancel(scene_.requests[event.index]); });
    case Kind::kLeave:
      return Do([&] { Leave(event.index); });
    case Kind::kStopString:
      return Do([&] { SeeStopString(scene_.requests[event.index]); });
    case Kind::kRead:
      if (!groups_[event.index].reader->has_left()) groups_[event.index].reader->Read();
      return;
    case Kind::kRestart:
      return Do([&] { StartReplica(event.index); });
    case Kind::kQuiet:
    case Kind::kReload:
      return Do([&] {
        scene_.trace.Note(event.kind == Kind::kQuiet ? "quiet" : "reload");
        if (event.kind == Kind::kQuiet) {
          if (scene_.plan.scenario == Scenario::kSwarm) scene_.policies = std::make_shared<TenantPolicies>();
          quiet_ = true;
          int64_t work = 10;
          for (const SimRequest& request : scene_.requests) work += request.num_prompt() + request.stop.max_tokens;
          most_events_ = totals_.num_events + 100 * work;
          const Plan& plan = scene_.plan;
          latest_us_ = event.at_us + 20 * work * (plan.step_us + plan.token_us * plan.limits.max_num_batched_tokens) +
                       1000 * (plan.step_us + plan.restart_us) + absl::ToInt64Microseconds(absl::Minutes(1));
        } else {
          scene_.policies = workload_.DrawPolicies();
        }
        scene_.queue.SetPolicies(scene_.policies);
        ledger_.OnReload();
      });
    case Kind::kJump:
      return Do([&] {
        const int64_t by_us = random_.Of({int64_t{1000}, int64_t{1000000}, int64_t{7200000000}});
        scene_.clock.Jump(absl::Microseconds(random_.Between(-by_us, by_us)));
        scene_.trace.Note("jump", absl::ToUnixMicros(scene_.clock.Now()));
      });
    case Kind::kClose:
      return Do([&] {
        scene_.trace.Note("close");
        scene_.queue.Close();
      });
    case Kind::kGiveUp:
      return Do([&] { GiveUp(); });
    case Kind::kDropAll:
      return Do([&] { DropAll(); });
  }
}

// One part of an event, and all checks after it.
void World::Do(absl::FunctionRef<void()> part) {
  ++scene_.moment;
  ledger_.Begin();
  part();
  Settle();
}

void World::Settle() {
  std::erase_if(scene_.live, [](const SimRequest* request) { return request->finish.has_value(); });
  for (const Told& told : scene_.told) {
    static constexpr std::array<const char*, 4> kWhat = {"  start", "  token", "  score", "  finish"};
    scene_.trace.Note(kWhat[static_cast<size_t>(told.what)], told.request->id, told.value);
    if (told.what == Told::What::kFinish) ++totals_.num_finished[static_cast<size_t>(told.value)];
  }
  blame_.CheckErrors();
  ledger_.End(whereabouts_.pulled_counters());
  whereabouts_.CheckCounts();
  scene_.queue.CheckInvariants();
  scene_.told.clear();
}

// Once the faults have stopped, everything ends.
void World::CheckLiveness() {
  if (scene_.live.empty()) return;
  CHECK(totals_.num_events <= most_events_, "everything ends within a bound of events");
  CHECK(scene_.clock.now_us() <= latest_us_, "everything ends within a bound of time");
}

// Nothing runs and nothing waits: everything is back where it belongs.
void World::CheckEnd() {
  CHECK(scene_.queue.size() == 0 && ledger_.num_reserved() == 0, "no place is taken");
  for (const SimReplica& replica : replicas_) {
    if (replica.replica == nullptr) continue;
    CHECK(replica.phase == Phase::kIdle, "who has nothing to do waits");
    replica.replica->scheduler().CheckInvariants();
    const Stats stats = replica.replica->stats();
    CHECK(stats.num_running == 0 && stats.num_free_blocks == stats.num_blocks, "every block is back");
  }
  if (scene_.plan.queue.max_time_to_first_token < absl::InfiniteDuration()) return;
  const auto places = scene_.queue.Reserve("nobody yet", Priority::kNormal, scene_.plan.queue.max_requests);
  CHECK(std::holds_alternative<QueuePlaces>(places), "every place is back");
}

}  // namespace weft
