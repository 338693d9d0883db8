#include "tests/simulator/whereabouts.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "kernels/check.h"

namespace weft {
namespace {

constexpr int kMaxPassed = 16;  // a pull looks no further past those that may be passed

// Whether a pull may leave it where it is and still start one behind it.
bool MayBePassed(const SimRequest& request) { return request.IsSuspect() || !request.raw->prefix_keys.empty(); }

}  // namespace

void Whereabouts::BeforePull() {
  lines_.clear();
  for (SimRequest* request : scene_.live) {
    if (request->where != SimRequest::kWaiting) continue;
    auto line = std::find_if(lines_.begin(), lines_.end(), [&](const Line& l) { return l.tenant == request->tenant; });
    if (line == lines_.end()) {
      const TenantAccount& account = *request->raw->account;
      const TenantPolicy& policy = scene_.PolicyOf(request->tenant);
      line = lines_.insert(
          line,
          {request->tenant, &account, account.counter, policy.weight, account.num_running, policy.max_running, {}});
    }
    line->waiting[static_cast<size_t>(request->priority)].push_back(request);
  }
}

// One that was pulled may have been preempted by the next one at once, and is nowhere to be seen until it is given
// back.
bool Whereabouts::AfterPull(int replica) {
  size_t num_pulled = 0;
  for (const Line& line : lines_) {
    for (size_t c = 0; c < line.waiting.size(); ++c) {
      const TenantAccount::Waiting& still = line.account->waiting[c];
      for (SimRequest* request : line.waiting[c]) {
        const bool waits = std::any_of(still.begin(), still.end(), [&](const auto& r) { return r->id == request->id; });
        if (waits || request->finish.has_value()) continue;
        request->where = replica;
        request->pulled_at = scene_.moment;
        request->publishes_since_cancel = 0;
        ++num_pulled;
        scene_.trace.Note("pulled", request->id, replica);
      }
    }
  }
  CheckOrder(num_pulled);
  for (const SimRequest* request : scene_.live) {
    const bool waits = request->where == SimRequest::kWaiting && !request->finish.has_value();
    CHECK(!waits || scene_.clock.Now() < request->deadline, "a deadline ends those that wait, too");
  }
  return num_pulled > 0;
}

// The order in which requests start follows from the queue's rules: by class, then by the tenant's counter, then
// by its rows, then by age; nobody is overtaken but those that may be passed, and no tenant runs more than it may.
void Whereabouts::CheckOrder(size_t num_pulled) {
  if (num_pulled > 0) {
    least_pulled_counter_ = std::numeric_limits<double>::infinity();
    most_pulled_counter_ = -least_pulled_counter_;
  }
  size_t num_taken = 0;
  blocked_ = nullptr;
  for (Line& line : lines_) {
    for (auto& waiting : line.waiting) {
      std::erase_if(waiting, [this](const SimRequest* request) { return scene_.clock.Now() >= request->deadline; });
    }
  }
  for (int c = kNumPriorities - 1; c >= 0;) {
    const Look look = LookAt(static_cast<Priority>(c));
    if (look == Look::kBlocked) break;
    if (look == Look::kTook) ++num_taken;
    c = look == Look::kTook ? kNumPriorities - 1 : c - 1;  // each pull looks at all classes
  }
  CHECK(num_taken == num_pulled, "requests start in their order, and no more than their tenants may");
}

Whereabouts::Look Whereabouts::LookAt(Priority priority) {
  const auto c = static_cast<size_t>(priority);
  std::vector<Line*> order;
  for (Line& line : lines_) {
    if (line.num_running < line.max_running && !line.waiting[c].empty()) order.push_back(&line);
  }
  const auto place = [c](const Line& line) {
    return std::tuple(line.counter, static_cast<double>(line.num_running) / line.weight, line.waiting[c].front()->id);
  };
  std::sort(order.begin(), order.end(), [&](const Line* a, const Line* b) { return place(*a) < place(*b); });
  if (order.size() > kMaxPassed) order.resize(kMaxPassed);
  for (Line* line : order) {
    const Look look = LookAt(*line, line->waiting[c]);
    if (look != Look::kNothing) return look;
  }
  return Look::kNothing;
}

Whereabouts::Look Whereabouts::LookAt(Line& line, std::vector<SimRequest*>& waiting) {
  for (size_t i = 0; i < waiting.size() && i < kMaxPassed;) {
    SimRequest* const request = waiting[i];
    if (!request->finish.has_value() && request->pulled_at != scene_.moment) {
      if (!MayBePassed(*request) && !scene_.dispatcher->IsPromised(request->id)) {
        blocked_ = request;
        return Look::kBlocked;
      }
      ++i;
      continue;
    }
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(i));
    if (request->finish.has_value()) continue;  // cancelled
    least_pulled_counter_ = std::min(least_pulled_counter_, line.counter);
    most_pulled_counter_ = std::max(most_pulled_counter_, line.counter);
    ++line.num_running;
    if (!request->charged) {
      const double price = request->sampling.score_prompt ? scene_.plan.queue.scored_token_price : 1.0;
      line.counter += price * static_cast<double>(request->prompt.size()) / line.weight;
    }
    return Look::kTook;
  }
  return Look::kNothing;
}

void Whereabouts::AfterPublish(int replica, const Scheduler& scheduler) {
  std::vector<const Request*> here;
  for (const auto& sequence : scheduler.running()) here.push_back(sequence->request.get());
  for (SimRequest* request : scene_.live) {
    if (request->where != replica || request->finish.has_value()) continue;
    if (std::find(here.begin(), here.end(), request->raw) == here.end()) {
      request->where = SimRequest::kWaiting;
      scene_.trace.Note("preempted", request->id, replica);
    }
    if (request->cancelled) {
      CHECK(++request->publishes_since_cancel <= 2, "who is cancelled has ended within two steps");
    }
  }
}

void Whereabouts::AfterDeath(int replica) {
  for (SimRequest* request : scene_.live) {
    if (request->where != replica || request->finish.has_value()) continue;
    request->where = SimRequest::kWaiting;
  }
}

void Whereabouts::CheckIdle(const Replica& replica, int64_t looked_us, bool tracks_prefixes) const {
  const absl::Time now = scene_.clock.Now();
  if (now >= replica.look_again()) return;  // it is about to
  for (const SimRequest* request : scene_.live) {
    if (request->where != SimRequest::kWaiting || request->cancelled) continue;
    CHECK(now < request->deadline || scene_.plan.num_clock_jumps > 0, "a deadline ends those that wait, too");
    if (request->raw->account->num_running >= scene_.PolicyOf(request->tenant).max_running) continue;
    const absl::Duration most = scene_.plan.dispatcher.max_affinity_wait;
    const absl::Time queued_at = request->raw->queued_at;
    // Where the clock jumps, it looks again after as long as it thought when it looked last.
    const bool may_wait = scene_.plan.num_clock_jumps > 0
                              ? absl::Microseconds(scene_.clock.now_us() - looked_us) <= most
                              : queued_at <= now && now < queued_at + most;
    CHECK(may_wait && tracks_prefixes && !request->raw->prefix_keys.empty(),
          "no replica idles while something waits that it could start");
  }
}

void Whereabouts::CheckCounts() const {
  struct Counts {
    const TenantAccount* account = nullptr;
    int64_t waiting = 0;
    int64_t running = 0;
  };
  std::vector<Counts> counts;
  int num_waiting = 0;
  for (const SimRequest* request : scene_.live) {
    const TenantAccount* const account = request->raw->account;
    auto own = std::find_if(counts.begin(), counts.end(), [account](const Counts& c) { return c.account == account; });
    if (own == counts.end()) own = counts.insert(own, {account, 0, 0});
    ++(request->where == SimRequest::kWaiting ? own->waiting : own->running);
    num_waiting += request->where == SimRequest::kWaiting ? 1 : 0;
  }
  CHECK(num_waiting == scene_.queue.size(), "the queue holds those that wait");
  for (const Counts& own : counts) {
    CHECK(own.account->num_waiting == own.waiting, "a tenant's waiting requests are counted");
    CHECK(own.account->num_running == own.running, "a tenant's running requests are counted");
  }
}

}  // namespace weft
