// A replica without a thread, on any engine: what is pushed runs when the test says so.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "scheduler/clock.h"
#include "scheduler/dispatcher.h"
#include "scheduler/fair_queue.h"
#include "scheduler/replica.h"
#include "tests/fakes/recording_sink.h"

namespace weft {

class HandDrivenReplica {
 public:
  explicit HandDrivenReplica(std::unique_ptr<Engine> engine, const SchedulerOptions& options = {})
      : replica_(0, std::move(engine), options, dispatcher_, clock_) {}

  // Fills in the id, a sink, and the keys of its prefix unless the tenant is "nobody", who shares nothing.
  std::shared_ptr<RecordingSink> Push(std::unique_ptr<Request> request) {
    auto sink = std::make_shared<RecordingSink>();
    request->id = next_id_++;
    request->sink = sink;
    request->arrival = clock_.Now();
    if (request->tenant != "nobody") {
      request->prefix_scope = ScopeKey(request->tenant, "", "");
      request->prefix_keys = PrefixKeys(*request->prefix_scope, request->prompt, replica_.limits().block_size);
    }
    auto places = queue_.Reserve(request->tenant, request->priority, 1);
    EXPECT_TRUE(queue_.Push(std::get<QueuePlaces>(places), request));
    return sink;
  }

  // One turn of the main loop.
  void Step() {
    StepUnchecked();
    replica_.scheduler().CheckInvariants();
  }
  // For who measures what a turn takes.
  void StepUnchecked() {
    replica_.PullWork();
    replica_.SubmitSteps();
    if (replica_.HasInFlight()) replica_.FinishStep();
    replica_.Publish();
  }

  void RunUntilIdle() {
    while (replica_.HasWork() || queue_.size() > 0) Step();
  }

  Stats stats() const { return replica_.stats(); }

 private:
  SystemClock clock_;
  FairQueue queue_{{}, clock_};
  Dispatcher dispatcher_{{}, queue_, clock_};
  Replica replica_;
  int64_t next_id_ = 0;
};

}  // namespace weft
