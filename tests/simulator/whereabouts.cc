#include "tests/simulator/whereabouts.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "kernels/check.h"

namespace weft {
namespace {

constexpr size_t kMaxPassed = 16;  // a pull looks no further past those that must wait
constexpr int kMaxOvertakers = 8;  // start before one that is too large just now

// Whether a pull may leave it where it is and still start one behind it.
bool MayBePassed(const SimRequest& request) { return request.IsSuspect() || !request.raw->prefix_keys.empty(); }

std::array<double, kNumPriorities> CountersOf(const TenantAccount& account) {
  std::array<double, kNumPriorities> counters{};
  for (const Priority p : kPriorities) counters[static_cast<size_t>(p)] = account.CounterIn(p);
  return counters;
}

}  // namespace

void Whereabouts::BeforePull() {
  scene_.asked.clear();
  lines_.clear();
  for (SimRequest* request : scene_.live) {
    if (request->where != SimRequest::kWaiting) continue;
    auto line = std::find_if(lines_.begin(), lines_.end(), [&](const Line& l) { return l.tenant == request->tenant; });
    if (line == lines_.end()) {
      const TenantAccount& account = *request->raw->account;
      const TenantPolicy& policy = scene_.PolicyOf(request->tenant);
      line = lines_.insert(
          line,
          {request->tenant, &account, CountersOf(account), policy.weight, account.num_running, policy.max_running, {}});
    }
    line->waiting[static_cast<size_t>(request->priority)].push_back(request);
    request->was_promised = scene_.dispatcher->IsPromised(request->id);
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

// The order in which requests are offered follows from the queue's rules: by class, then by the tenant's counter, then
// by its rows, then by age, until one is taken or may not be passed; and no tenant runs more than it may.
void Whereabouts::CheckOrder(size_t num_pulled) {
  const auto is_overdue = [this](const SimRequest* request) { return request->deadline <= scene_.clock.Now(); };
  for (Line& line : lines_) {
    for (auto& waiting : line.waiting) std::erase_if(waiting, is_overdue);
  }
  Offers offers{std::move(scene_.asked)};
  std::erase_if(offers.requests, is_overdue);
  size_t num_taken = 0;
  while (CheckPull(offers)) ++num_taken;
  CHECK(offers.AreOver(), "nobody is offered behind one that must not be passed");
  CHECK(num_taken == num_pulled, "who is taken was offered, and can't be passed");
}

// True: one was taken, and the next pull begins.
bool Whereabouts::CheckPull(Offers& offers) {
  overtaken_.clear();
  blocked_ = nullptr;
  const size_t begin = offers.next;
  for (int c = kNumPriorities - 1; c >= 0; --c) {
    const auto priority = static_cast<Priority>(c);
    for (Line* line : InOrder(priority)) {
      std::vector<SimRequest*>& waiting = line->waiting[static_cast<size_t>(c)];
      for (size_t i = 0; i < std::min(waiting.size(), kMaxPassed);) {
        if (offers.AreOver()) {
          CHECK(offers.next > begin, "who may start is offered");
          return false;
        }
        SimRequest& request = *waiting[i];
        CHECK(offers.requests[offers.next++] == &request, "requests are offered in their order");
        if (request.finish.has_value()) {  // cancelled
          waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(i));
          continue;
        }
        const auto rest = offers.requests.begin() + static_cast<std::ptrdiff_t>(offers.next);
        const bool comes_again = std::find(rest, offers.requests.end(), &request) != offers.requests.end();
        if (request.pulled_at == scene_.moment && !comes_again) {
          Take(*line, priority, i);
          return true;
        }
        CheckPassed(request, offers);
        ++i;
      }
    }
  }
  return false;
}

// Tenants that may run one of this class, in the order in which they are asked.
std::vector<Whereabouts::Line*> Whereabouts::InOrder(Priority priority) {
  const auto c = static_cast<size_t>(priority);
  std::vector<Line*> order;
  for (Line& line : lines_) {
    if (line.num_running < line.max_running && !line.waiting[c].empty()) order.push_back(&line);
  }
  const auto place = [c](const Line& line) {
    return std::tuple(static_cast<double>(line.num_running) / line.weight, line.counters[c],
                      line.waiting[c].front()->id);
  };
  const auto sooner = [c](const Line* a, const Line* b) { return a->counters[c] < b->counters[c]; };
  for (auto next = order.begin(); next != order.end(); ++next) {
    const double least = (*std::min_element(next, order.end(), sooner))->counters[c];
    auto first = order.end();
    for (auto it = next; it != order.end(); ++it) {
      const bool is_even = (*it)->counters[c] <= least + scene_.plan.queue.even_tokens / (*it)->weight;
      if (is_even && (first == order.end() || place(**it) < place(**first))) first = it;
    }
    std::iter_swap(next, first);
  }
  if (order.size() > kMaxPassed) order.resize(kMaxPassed);
  return order;
}

void Whereabouts::CheckPassed(SimRequest& request, const Offers& offers) {
  if (MayBePassed(request) || request.was_promised || scene_.dispatcher->IsPromised(request.id)) return;
  if (blocked_ == nullptr) blocked_ = &request;
  CHECK(offers.AreOver() || request.num_overtakers < kMaxOvertakers, "few overtake one that is too large");
  overtaken_.push_back(&request);
}

void Whereabouts::Take(Line& line, Priority priority, size_t index) {
  std::vector<SimRequest*>& waiting = line.waiting[static_cast<size_t>(priority)];
  const SimRequest& request = *waiting[index];
  waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(index));
  for (SimRequest* overtaken : overtaken_) ++overtaken->num_overtakers;
  const auto c = static_cast<size_t>(priority);
  double& counter = line.counters[c];
  pulled_counters_[c] = std::max(pulled_counters_[c], counter);
  ++line.num_running;
  if (request.charged) return;
  const double price = request.sampling.score_prompt ? scene_.plan.queue.scored_token_price : 1.0;
  counter += price * static_cast<double>(request.prompt.size()) / line.weight;
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
      CHECK(++request->publishes_since_cancel <= std::max(2, scene_.plan.max_in_flight),
            "who is cancelled has ended within two steps of each stage");
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
