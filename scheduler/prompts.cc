// The part of Scheduler that divides a step's prompt tokens, and says which prompts wait for a later step.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

#include "scheduler/scheduler.h"
#include "scheduler/tenant_account.h"

namespace weft {
namespace {

// Of each class, what the tenant was served that was served least.
class LeastServed {
 public:
  LeastServed() { served_.fill(std::numeric_limits<double>::infinity()); }

  void Add(Priority priority, double served) {
    double& least = served_[static_cast<size_t>(priority)];
    least = std::min(least, served);
  }
  // ... by more than what counts as even.
  bool HasLessThan(const Request& request) const {
    return served_[static_cast<size_t>(request.priority)] < EvenFrom(request);
  }
  bool HasHigherClass(const Request& request) const {
    const auto higher = served_.begin() + static_cast<std::ptrdiff_t>(request.priority) + 1;
    return std::any_of(higher, served_.end(), [](double s) { return s < std::numeric_limits<double>::infinity(); });
  }

 private:
  std::array<double, kNumPriorities> served_;
};

}  // namespace

// The tenants of a class share what is left by their weights, and each tenant's prompts its part; what a short prompt
// doesn't need goes to the longer. So no prompt waits behind a longer one or behind many of another tenant. Tenants
// that were served more than others get what those leave; not for long, for they pay.
void Scheduler::GrowPrompts(StepBudget& budget) {
  if (ListensToOthers()) return;
  // Counted as what tokens at position 0 cost.
  double left = std::min(budget.tokens, pacer_.max_tokens(building_.others_decode));
  FindPrompts();
  std::array<std::array<double, 2>, kNumPriorities> weights{};
  const auto weights_beside = [&weights](const Prompt& prompt) -> double& {
    return weights[static_cast<size_t>(prompt.sequence->request->priority)][prompt.is_first ? 1 : 0];
  };
  const bool may_disturb = MayDisturb();
  if (!may_disturb) std::erase_if(prompts_, [](const Prompt& prompt) { return prompt.gives_way; });
  for (const Prompt& prompt : prompts_) weights_beside(prompt) += prompt.weight;
  for (const Prompt& prompt : prompts_) {
    if (left < 1) break;
    double& all = weights_beside(prompt);
    const double part = std::min(1.0, prompt.weight / all);
    const auto part_of = [part](double whole) { return std::max(1, static_cast<int>(std::lround(whole * part))); };
    all -= prompt.weight;
    const int begin = prompt.sequence->num_scheduled;
    const double cost = pacer_.Cost(begin);
    StepBudget own{.tokens = std::min(budget.tokens, part_of(left / cost)),
                   .scores = std::min(budget.scores, part_of(budget.scores))};
    const StepBudget before = own;
    GrowOne(*prompt.sequence, own);
    const int num_tokens = before.tokens - own.tokens;
    left -= num_tokens * cost;
    budget.tokens -= num_tokens;
    budget.scores -= before.scores - own.scores;
    building_.prompts.Add(num_tokens, begin);
    building_.disturbs = building_.disturbs || (prompt.gives_way && num_tokens > 0);
  }
}

void Scheduler::FindPrompts() {
  prompts_.clear();
  for (const auto& sequence : running_) {
    const bool stays = sequence->leaving == Sequence::Leaving::kNo;
    if (stays && sequence->num_uncomputed() > 1) prompts_.push_back({sequence.get(), 0});
  }
  for (Prompt& prompt : prompts_) {
    const auto same_tenant = std::count_if(prompts_.begin(), prompts_.end(), [&](const Prompt& other) {
      const Request &a = *other.sequence->request, &b = *prompt.sequence->request;
      return a.account == b.account && a.priority == b.priority;
    });
    prompt.weight = prompt.sequence->request->weight / static_cast<double>(same_tenant);
  }
  if (!prompts_.empty()) RankPrompts();
}

// By class, in a class those first whose tenants were served less, and of these those that need least for their weight:
// what they leave is then known to the others.
void Scheduler::RankPrompts() {
  LeastServed prompts, decoding;
  for (const Prompt& prompt : prompts_)
    prompts.Add(prompt.sequence->request->priority, ServedOf(*prompt.sequence->request));
  for (const auto& sequence : running_) {
    const bool stays = sequence->leaving == Sequence::Leaving::kNo;
    if (stays && sequence->num_uncomputed() <= 1)
      decoding.Add(sequence->request->priority, ServedOf(*sequence->request));
  }
  if (room_for_.has_value()) decoding.Add(room_for_->priority, room_for_->served);
  for (Prompt& prompt : prompts_) {
    const Request& request = *prompt.sequence->request;
    const Sequence& sequence = *prompt.sequence;
    prompt.need = sequence.num_uncomputed() * pacer_.Cost(sequence.num_scheduled) / prompt.weight;
    prompt.is_first = !prompts.HasLessThan(request);
    prompt.gives_way = decoding.HasLessThan(request) || decoding.HasHigherClass(request);
  }
  std::sort(prompts_.begin(), prompts_.end(), [](const Prompt& a, const Prompt& b) {
    const Request &request_a = *a.sequence->request, &request_b = *b.sequence->request;
    if (request_a.priority != request_b.priority) return request_a.priority > request_b.priority;
    if (a.is_first != b.is_first) return a.is_first;
    return a.need != b.need ? a.need < b.need : request_a.id < request_b.id;
  });
}

// Where every step has prompts in it, one of them goes without now and then, so that what a step takes that only draws
// doesn't become a guess.
bool Scheduler::ListensToOthers() const {
  constexpr int kMost = 16;
  return building_.others_decode && num_with_prompts_ >= kMost && options_.max_itl < absl::InfiniteDuration();
}

// Prompts that give way take part in a step now and then, so that they take no more than their share of the time; or
// where nobody else has anything to do.
bool Scheduler::MayDisturb() const {
  if (building_.chunks.empty() && in_flight_.empty()) return true;
  if (room_for_.has_value()) return false;
  return disturbance_ <= absl::ZeroDuration() &&
         std::none_of(in_flight_.begin(), in_flight_.end(), [](const StepInFlight& step) { return step.disturbs; });
}

}  // namespace weft
