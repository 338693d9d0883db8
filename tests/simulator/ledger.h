// Keeps its own books of what each tenant was served and granted, and compares them with the queue's.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <variant>
#include <vector>

#include "tests/simulator/scene.h"
#include "tests/simulator/whereabouts.h"

namespace weft {

class Ledger {
 public:
  explicit Ledger(Scene& scene) : scene_(scene), tenants_(static_cast<size_t>(scene.plan.clients.num_tenants)) {}

  // What Reserve answered.
  void OnReserve(int tenant, int64_t count, const std::variant<QueuePlaces, Refusal>& answer);
  void OnReturn(int tenant, int64_t count);  // of places
  void OnTimeToFirstToken(int tenant);       // CheckTimeToFirstToken was called

  void OnReload() { was_reloaded_ = was_ever_reloaded_ = true; }  // of the policies

  // Around a push.
  void BeforePush(const SimRequest& request);
  void AfterPush(const SimRequest& request);

  // Before and after each part of an event; what was told in between costs its tenant something. The pulled counters
  // are Whereabouts'.
  void Begin();
  void End(const std::array<double, kNumPriorities>& pulled_counters);

  int64_t num_reserved() const { return num_reserved_; }

 private:
  // Of a tenant in one class.
  struct Book {
    double counter = 0;
    double price = 0;            // of this part of the event
    double cost = 0;             // the same without what was given back
    double least_of_others = 0;  // before this part
    double service = 0;          // over weight, from the beginning
  };
  struct Tenant {
    const TenantAccount* account = nullptr;  // null: it may have been forgotten
    std::array<Book, kNumPriorities> books;
    int64_t num_running = 0;                         // before this part
    int num_left = 0;                                // of its running requests, in this part
    bool left_at_end = false;                        // the last of them, having all its tokens
    bool was_held_back = false;                      // before this part, by its cap
    bool has_asked = false;                          // for a place, ever
    std::array<double, kNumPriorities> begins_at{};  // how far the others had come then

    int64_t num_reserved = 0;
    // A token bucket.
    double level = 0;
    bool is_filled = false;
    absl::Time filled_at;
  };

  Tenant& Of(const SimRequest& request) { return tenants_[static_cast<size_t>(request.tenant)]; }
  bool ForgetsTenants() const { return tenants_.size() > 60; }
  void Refill(int tenant);
  double LeastOfOthers(const TenantAccount* account, Priority priority) const;
  std::pair<double, double> CounterOfOthers(const TenantAccount* account, Priority priority) const;
  double CreditOf(int tenant) const;
  void AddPrices();
  void CheckCounter(int index, Tenant& tenant, Priority priority);
  void CheckLift(int index, Priority priority) const;
  void CheckShares(Priority priority);

  Scene& scene_;
  std::vector<Tenant> tenants_;
  int64_t num_reserved_ = 0;
  bool was_reloaded_ = false;  // in this part of the event
  bool was_ever_reloaded_ = false;
  // By class.
  std::array<double, kNumPriorities> pulled_{};  // the greatest of a tenant just before it was pulled from
  // The greatest that any tenant ever had lies between.
  struct Most {
    double least = 0;
    double most = 0;
  };
  std::array<Most, kNumPriorities> most_{};
  std::pair<double, double> lift_before_push_;
  double counter_before_push_ = 0;
  bool had_none_waiting_ = false;
  // [num_tenants, num_tenants] of two tenants that want more: how far apart their service was when they began to.
  struct Gaps {
    std::vector<double> gaps;
    std::vector<bool> both_want;
  };
  std::array<Gaps, kNumPriorities> gaps_;
};

}  // namespace weft
