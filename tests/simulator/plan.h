// What a seed stands for: a machine, its clients, and how often which fault strikes.
#pragma once

#include <cstdint>

#include "engine/engine.h"
#include "scheduler/dispatcher.h"
#include "scheduler/fair_queue.h"
#include "scheduler/scheduler.h"

namespace weft {

enum class Scenario {
  kSwarm,  // anything
  kCalm,   // one replica, a large pool, no faults: every prefix that was computed is taken up
  kFair,   // tenants that always want more, no faults, no prefixes: service is divided by weight
};

// Chances that a step ...
struct StepFaults {
  double dies = 0;           // before, during or after it is computed
  double is_late = 0;        // takes a hundred times as long
  double comes_twice = 0;    // its result is given again, in place of the next
  double is_miscounted = 0;  // its result holds a token too many or too few
  double is_reordered = 0;   // its result comes after the next one's
};

struct ClientMix {
  int num_groups = 0;  // requests, of one or more choices each
  int num_tenants = 1;
  int num_families = 1;  // of prompts with a common beginning
  int max_choices = 1;
  int max_prompt = 1;
  int max_output = 1;
  int64_t mean_gap_us = 0;     // between two groups
  int64_t max_prepare_us = 0;  // between a reserved place and the push
  // Chances that a group ...
  double is_unscoped = 0;
  double has_salt = 0;
  double scores_prompt = 0;
  double has_stop = 0;
  double has_deadline = 0;
  double is_cancelled = 0;
  double is_abandoned = 0;  // between the reserved place and the push
  double stops_reading = 0;
  double has_nan = 0;
  double is_poison = 0;   // the replica that computes a certain position of it dies
  double asks_class = 0;  // another class than its tenant's
};

struct Plan {
  uint64_t seed = 0;
  Scenario scenario = Scenario::kSwarm;

  EngineLimits limits;
  int max_in_flight = 2;
  int num_replicas = 1;
  int64_t step_us = 1000;  // a step takes at least
  int64_t token_us = 0;    // and for each of its tokens
  SchedulerOptions scheduler;
  DispatcherOptions dispatcher;
  FairQueueOptions queue;
  bool shares_all_prefixes = false;  // the scope leaves the tenant out

  ClientMix clients;

  StepFaults steps;
  int num_restarts = 0;  // of dead replicas; then they stay dead
  int64_t restart_us = 0;
  double interleaves = 0;  // chance that something may happen between two parts of a replica's loop
  int num_reloads = 0;     // of the policies
  int num_clock_jumps = 0;
  bool shuts_down = false;  // while requests still come
  bool drops_all = false;   // a while after that, as a server whose patience ends
  bool gives_up = false;    // fails the queue while replicas still run

  // Nothing may be passed over: the order in which requests start follows from the queue's rules alone.
  bool HasNoPasses() const;
};

Plan DrawPlan(uint64_t seed);

}  // namespace weft
