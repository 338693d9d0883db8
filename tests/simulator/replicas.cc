// The part of World that stands for the replicas' threads and for the supervisor that restarts the dead.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "tests/simulator/preemptions.h"
#include "tests/simulator/world.h"

namespace weft {

void World::StartReplica(size_t index) {
  SimReplica& r = replicas_[index];
  const Plan& plan = scene_.plan;
  SimEngine::Host host;
  host.request = [this](const SamplingParams& sampling) -> SimRequest& {
    const uint64_t first = sampling.seed - (scene_.plan.seed << 16);
    CHECK(first + sampling.sequence < scene_.requests.size(), "sampling parameters reach the engine as they are");
    return scene_.requests[first + sampling.sequence];
  };
  host.decide = [this, index](const Batch& batch, const std::vector<SimRequest*>& rows) {
    return Decide(index, batch, rows);
  };
  host.now_us = [this] { return scene_.clock.now_us(); };
  host.moment = [this] { return scene_.moment; };
  auto engine = std::make_unique<SimEngine>(plan.limits, plan.max_in_flight, std::move(host));
  r.engine = engine.get();
  if (r.dead != nullptr) {
    r.replica = std::move(r.dead);
    r.replica->Revive(std::move(engine));
  } else {
    r.replica = std::make_unique<Replica>(static_cast<int>(index), std::move(engine), plan.scheduler, dispatcher_,
                                          scene_.clock);
    r.pacing.emplace(plan);
  }
  r.giving_way.emplace(plan);
  r.phase = Phase::kPull;
  r.restarts = false;
  scene_.trace.Note("replica starts", static_cast<int64_t>(index));
  Schedule(0, Kind::kTurn, index, ++r.turn);
}

// The parts of Replica::Run, one after the other; between two of them time may pass, and anything happen.
void World::RunReplica(size_t index) {
  SimReplica& r = replicas_[index];
  if (r.phase == Phase::kIdle) r.phase = Phase::kPull;
  r.wakes = false;
  while (true) {
    RunPhase(index);
    if (r.phase == Phase::kIdle || r.phase == Phase::kDrained || r.phase == Phase::kDead) return;
    const int64_t delay_us = DelayBefore(r);
    if (delay_us == 0) continue;
    return Schedule(delay_us, Kind::kTurn, index, ++r.turn);
  }
}

int64_t World::DelayBefore(const SimReplica& r) {
  if (r.phase == Phase::kCollect) return std::max<int64_t>(r.engine->done_us() - scene_.clock.now_us(), 0);
  return random_.Chance(scene_.plan.interleaves) ? random_.Between(1, scene_.plan.step_us / 4) : 0;
}

void World::RunPhase(size_t index) {
  SimReplica& r = replicas_[index];
  switch (r.phase) {
    case Phase::kPull:
      Do([&] { r.replica->status().ok() ? Pull(index) : Bury(index); });
      break;
    case Phase::kSubmit:
      Do([&] { Submit(index); });
      break;
    case Phase::kCollect:
      Do([&] { Collect(index); });
      break;
    case Phase::kPublish:
      Do([&] { Publish(index); });
      break;
    case Phase::kIdle:
    case Phase::kDrained:
    case Phase::kDead:
      break;
  }
  if (r.replica != nullptr) r.replica->scheduler().CheckInvariants();
}

void World::Pull(size_t index) {
  SimReplica& r = replicas_[index];
  const Preemptions preemptions(scene_, r.replica->scheduler());
  whereabouts_.BeforePull();
  r.replica->PullWork();
  r.looked_us = scene_.clock.now_us();
  const bool pulled_any = whereabouts_.AfterPull(static_cast<int>(index));
  if (!pulled_any && whereabouts_.blocked() != nullptr) preemptions.CheckPull(*whereabouts_.blocked());
  if (r.replica->HasWork()) {
    r.phase = Phase::kSubmit;
    return;
  }
  r.phase = scene_.queue.drained() ? Phase::kDrained : Phase::kIdle;
  scene_.trace.Note(r.phase == Phase::kDrained ? "replica drained" : "replica idle", static_cast<int64_t>(index));
  if (r.phase == Phase::kDrained || r.replica->look_again() == absl::InfiniteFuture()) return;
  const absl::Duration wait = r.replica->look_again() - scene_.clock.Now();
  Schedule(std::max<int64_t>(absl::ToInt64Microseconds(absl::Ceil(wait, absl::Microseconds(1))), 1), Kind::kTurn, index,
           ++r.turn);
}

void World::Submit(size_t index) {
  SimReplica& r = replicas_[index];
  const Preemptions preemptions(scene_, r.replica->scheduler());
  r.replica->SubmitSteps();
  preemptions.CheckSubmit();
  CHECK(r.replica->HasInFlight() || !r.replica->scheduler().HasWork(), "who has work has a step in flight");
  r.phase = r.replica->HasInFlight() ? Phase::kCollect : Phase::kPublish;
}

void World::Collect(size_t index) {
  SimReplica& r = replicas_[index];
  std::vector<SimRequest*> in_steps = r.engine->InSteps();
  std::erase_if(in_steps, [](const SimRequest* request) { return request->finish.has_value(); });
  r.replica->FinishStep();
  r.phase = Phase::kPublish;
  const Stats stats = r.replica->scheduler().stats();
  if (stats.num_steps > r.num_steps) {
    r.pacing->OnCommit(static_cast<int>(stats.max_prefill_tokens));
    r.giving_way->OnCommit();
  }
  r.num_steps = stats.num_steps;
  if (r.replica->status().ok()) return;
  scene_.trace.Note("replica dies", static_cast<int64_t>(index), static_cast<int64_t>(in_steps.size()));
  ++totals_.num_deaths;
  blame_.OnDeath(in_steps, /*from_outside=*/absl::IsUnavailable(r.replica->status()));
  whereabouts_.AfterDeath(static_cast<int>(index));
}

void World::Publish(size_t index) {
  SimReplica& r = replicas_[index];
  r.replica->Publish();
  whereabouts_.AfterPublish(static_cast<int>(index), r.replica->scheduler());
  const Stats stats = r.replica->stats();
  if (scene_.plan.scenario == Scenario::kCalm) {
    sharing_.Check(stats.num_evictions > 0 || stats.num_preemptions != Stats().num_preemptions);
  }
  int most_prefixes = 0;
  for (const SimReplica& other : replicas_)
    most_prefixes += other.replica != nullptr ? scene_.plan.limits.num_blocks : 0;
  CHECK(static_cast<int>(dispatcher_.directory().size()) <= most_prefixes, "the directory knows what there is");
  r.phase = Phase::kPull;
}

// A replica whose engine died waits for another, or ends.
void World::Bury(size_t index) {
  SimReplica& r = replicas_[index];
  const Stats stats = r.replica->scheduler().stats();
  CHECK(stats.num_running == 0 && stats.num_free_blocks == stats.num_blocks, "the dead hold nothing");
  CHECK(stats.num_cached_blocks == 0, "nothing is taken up of what a dead engine held");
  r.phase = Phase::kDead;
  r.restarts = num_restarts_left_ > 0;
  if (!r.restarts) AddStats(stats);
  r.dead = r.restarts ? std::move(r.replica) : nullptr;
  r.replica = nullptr;
  if (r.restarts) {
    --num_restarts_left_;
    Schedule(random_.Between(0, scene_.plan.restart_us), Kind::kRestart, index);
  }
  FailIfNoneIsLeft();
}

void World::FailIfNoneIsLeft() {
  const auto num_alive =
      std::count_if(replicas_.begin(), replicas_.end(), [](const SimReplica& r) { return r.replica != nullptr; });
  scene_.queue.SetNumReplicas(static_cast<int>(num_alive));
  const bool some_come =
      std::any_of(replicas_.begin(), replicas_.end(), [](const SimReplica& r) { return r.restarts; });
  if (num_alive > 0 || some_come) return;
  CHECK(dispatcher_.directory().size() == 0, "what the dead had is forgotten");
  GiveUp();
}

void World::GiveUp() {
  scene_.trace.Note("gives up");
  scene_.failed = true;
  scene_.queue.Fail(absl::UnavailableError("no replica is left"));
}

// As FairQueue::WaitForChange does.
void World::WakeIdle() {
  for (size_t i = 0; i < replicas_.size(); ++i) {
    SimReplica& r = replicas_[i];
    if (r.phase != Phase::kIdle || r.wakes) continue;
    if (r.replica->HasNews()) {
      r.wakes = true;
      Schedule(random_.Chance(scene_.plan.interleaves) ? random_.Between(0, 50) : 0, Kind::kTurn, i, ++r.turn);
    } else {
      whereabouts_.CheckIdle(*r.replica, r.looked_us, dispatcher_.tracks_prefixes());
    }
  }
}

SimEngine::Host::Fate World::Decide(size_t index, const Batch& batch, const std::vector<SimRequest*>& rows) {
  const absl::Time now = scene_.clock.Now();
  for (const SimRequest* request : rows) {
    CHECK(!request->cancelled && now < request->deadline, "no step computes what nobody wants");
    CHECK(!request->finish.has_value() && request->where == static_cast<int>(index), "a row is one that runs here");
  }
  Blame::CheckStep(rows);
  const Plan& plan = scene_.plan;
  int64_t took_us = plan.step_us + plan.token_us * batch.num_tokens();
  took_us += random_.Between(0, plan.step_us / 10);
  if (!quiet_ && random_.Chance(plan.steps.is_late)) took_us *= 100;
  const StepFault fault = DrawFault(batch, rows);
  replicas_[index].pacing->OnSubmit(batch, rows, took_us);
  replicas_[index].giving_way->OnSubmit(batch, rows, replicas_[index].replica->scheduler(), took_us);
  scene_.trace.Note("step", static_cast<int64_t>(index), batch.step, batch.num_tokens());
  for (size_t row = 0; row < rows.size(); ++row) {
    scene_.trace.Note("  row", rows[row]->id, batch.positions[static_cast<size_t>(batch.row_begin[row])],
                      batch.positions[static_cast<size_t>(batch.row_begin[row + 1]) - 1]);
  }
  for (const BlockUpdate& update : batch.block_updates) {
    scene_.trace.Note("  block", update.slot, update.index, update.block);
  }
  if (fault != StepFault::kNone) scene_.trace.Note("  fault", static_cast<int64_t>(fault));
  return {took_us, fault};
}

StepFault World::DrawFault(const Batch& batch, const std::vector<SimRequest*>& rows) {
  for (size_t row = 0; row < rows.size(); ++row) {
    const int32_t poison = rows[row]->poison_position;
    const auto first = static_cast<size_t>(batch.row_begin[row]);
    const auto last = static_cast<size_t>(batch.row_begin[row + 1]) - 1;
    if (poison >= batch.positions[first] && poison <= batch.positions[last]) return StepFault::kDiesDuring;
  }
  const StepFaults& chances = scene_.plan.steps;
  if (quiet_) return StepFault::kNone;
  if (random_.Chance(chances.dies)) {
    return random_.Of({StepFault::kDiesBefore, StepFault::kDiesDuring, StepFault::kDiesAfter});
  }
  if (random_.Chance(chances.is_miscounted)) return StepFault::kMiscounted;
  if (random_.Chance(chances.is_reordered)) return StepFault::kReordered;
  if (random_.Chance(chances.comes_twice)) return StepFault::kComesTwice;
  return StepFault::kNone;
}

void World::AddStats(const Stats& stats) {
  totals_.num_steps += stats.num_steps;
  totals_.num_prompt_tokens += stats.num_prompt_tokens;
  totals_.num_cached_tokens += stats.num_cached_tokens;
  for (size_t i = 0; i < stats.num_preemptions.size(); ++i) totals_.num_preemptions[i] += stats.num_preemptions[i];
}

}  // namespace weft
