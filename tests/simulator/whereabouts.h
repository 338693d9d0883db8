// Follows each request from the queue to a replica and back, and checks who goes next, who waits and why.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "scheduler/replica.h"
#include "tests/simulator/scene.h"

namespace weft {

class Whereabouts {
 public:
  explicit Whereabouts(Scene& scene) : scene_(scene) {}

  // Around a replica's PullWork.
  void BeforePull();
  bool AfterPull(int replica);  // whether it pulled any
  // After a replica has told and given back all that it had to.
  void AfterPublish(int replica, const Scheduler& scheduler);
  void AfterDeath(int replica);
  // A replica that waits, does not know of anything new, and last looked for work at `looked_us`, has a reason.
  void CheckIdle(const Replica& replica, int64_t looked_us, bool tracks_prefixes) const;
  // The queue's counts are those that follow from where everybody is.
  void CheckCounts() const;

  // By class, the most that the counter of a tenant was in the last pulls, just before one of its requests was taken.
  const std::array<double, kNumPriorities>& pulled_counters() const { return pulled_counters_; }

  // The first that was offered in the last pull and may not be passed; null: there was none.
  const SimRequest* blocked() const { return blocked_; }

 private:
  struct Line {  // what waits of a tenant, and what it may do
    int tenant = 0;
    const TenantAccount* account = nullptr;
    std::array<double, kNumPriorities> counters{};
    double weight = 1;
    int64_t num_running = 0;
    int64_t max_running = 0;
    std::array<std::vector<SimRequest*>, kNumPriorities> waiting;  // by class, then by id
  };

  // The requests that the pulls offered, in order.
  struct Offers {
    std::vector<SimRequest*> requests;
    size_t next = 0;

    bool AreOver() const { return next == requests.size(); }
  };

  void CheckOrder(size_t num_pulled);
  bool CheckPull(Offers& offers);
  std::vector<Line*> InOrder(Priority priority);
  void CheckPassed(SimRequest& request, const Offers& offers);
  void Take(Line& line, Priority priority, size_t index);

  Scene& scene_;
  std::vector<Line> lines_;  // as of BeforePull
  const SimRequest* blocked_ = nullptr;
  std::array<double, kNumPriorities> pulled_counters_{};
  std::vector<SimRequest*> overtaken_;  // by the one that is taken next
};

}  // namespace weft
