// A fair queue without replicas: whoever pulls takes what is offered.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "scheduler/fair_queue.h"
#include "tests/fakes/manual_clock.h"
#include "tests/fakes/recording_sink.h"

namespace weft {

using Reason = Refusal::Reason;

struct RequestOptions {
  size_t prompt_tokens = 10;
  Priority priority = Priority::kNormal;
  bool score_prompt = false;
  absl::Time deadline = absl::InfiniteFuture();
};

// A queue whose replica takes whatever it is offered.
struct Line {
  explicit Line(const FairQueueOptions& options = {.even_tokens = 0, .max_credit = 0}) : queue(options, clock) {}

  std::shared_ptr<RecordingSink> Push(int64_t id, const std::string& tenant, const RequestOptions& options = {}) {
    auto request = std::make_unique<Request>();
    request->id = id;
    request->tenant = tenant;
    request->prompt.assign(options.prompt_tokens, 1);
    request->priority = options.priority;
    request->sampling.score_prompt = options.score_prompt;
    request->deadline = options.deadline;
    auto sink = std::make_shared<RecordingSink>();
    request->sink = sink;
    auto places = queue.Reserve(tenant, options.priority, 1);
    EXPECT_TRUE(std::holds_alternative<QueuePlaces>(places));
    EXPECT_TRUE(queue.Push(std::get<QueuePlaces>(places), request));
    queue.CheckInvariants();
    return sink;
  }

  std::unique_ptr<Request> Pop() {
    auto request = queue.Pull([](const Request&) { return Verdict::kTake; }).request;
    queue.CheckInvariants();
    return request;
  }

  // Takes one and lets it finish, so that caps on what runs don't matter.
  std::string PopTenant() {
    const auto request = Pop();
    if (request == nullptr) return "";
    queue.Leave(*request->account);
    return request->tenant;
  }

  std::map<std::string, int> PopTenants(int count) {
    std::map<std::string, int> popped;
    for (int i = 0; i < count; ++i) ++popped[PopTenant()];
    return popped;
  }

  void SetPolicy(const std::string& tenant, const TenantPolicy& policy) {
    auto policies = std::make_shared<TenantPolicies>(*queue.policies());
    policies->named[tenant] = policy;
    queue.SetPolicies(std::move(policies));
  }

  std::optional<Reason> RefusalOf(const std::string& tenant, int64_t count = 1) {
    const auto places = queue.Reserve(tenant, Priority::kNormal, count);
    if (std::holds_alternative<QueuePlaces>(places)) return std::nullopt;
    EXPECT_GE(std::get<Refusal>(places).retry_after, absl::Seconds(1));
    EXPECT_LE(std::get<Refusal>(places).retry_after, absl::Minutes(1));
    return std::get<Refusal>(places).reason;
  }

  ManualClock clock;
  FairQueue queue;
};

}  // namespace weft
