// The part of Scheduler that says who may start, what a newcomer can take up, and who gives way to it.
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "scheduler/scheduler.h"
#include "scheduler/tenant_account.h"

namespace weft {
namespace {

// Of a step's prompt tokens, what each prompt under way ought to get at least: more prompts at once would only make all
// of them slow, and what isn't taken on yet can still be ordered.
constexpr int kPromptShare = 64;

// The tenant of `other`, of the same class.
bool WasServedMore(const Request& other, const Request& newcomer) {
  return other.priority == newcomer.priority && ServedOf(newcomer) < EvenFrom(other);
}

// What its tenant runs on all replicas, for its weight.
double RowsOf(const Request& request) {
  if (request.account == nullptr) return 0;
  return static_cast<double>(request.account->num_running) / request.account->policy.weight;
}

// Whom to preempt for a newcomer: no more than it takes, and nobody if that isn't enough.
class VictimSearch {
 public:
  // `num_too_many`: rows that nobody gets whose sequences end.
  VictimSearch(const std::vector<std::unique_ptr<Sequence>>& running, const Request& newcomer, int num_blocks,
               int num_too_many)
      : running_(running), newcomer_(newcomer), missing_blocks_(num_blocks) {
    for (const auto& sequence : running_) {
      if (sequence->leaving == Sequence::Leaving::kNo) continue;
      const bool is_lost = sequence->leaving == Sequence::Leaving::kFinished && num_too_many-- > 0;
      AddRoom(is_lost ? 0 : 1, sequence->blocks.size());
      if (sequence->leaving == Sequence::Leaving::kPreempted) AddGone(*sequence->request);
    }
  }

  // The queue still counts it among those that its tenant runs; not so one that has finished, for it was told.
  void AddGone(const Request& request) { ++gone_[request.account]; }

  void AddRoom(int slots, int blocks) {
    slots_ += slots;
    missing_blocks_ -= blocks;
  }

  // The last in rank first.
  void TakeFromLowerClasses() {
    for (auto it = running_.rbegin(); it != running_.rend() && !IsEnough(); ++it) {
      if (Stays(**it) && (*it)->request->priority < newcomer_.priority) Take(**it, PreemptionReason::kPriority);
    }
  }

  // From the tenant of this class that runs the most for its weight, its newest: as long as it then still runs as much
  // for its weight as the newcomer's, so tenants come closer to equal rows, and none takes back what it gave; or, where
  // the newcomer's was served less, as long as it runs any.
  void TakeFromRicherTenants() {
    if (newcomer_.account == nullptr) return;
    while (!IsEnough()) {
      Sequence* victim = nullptr;
      for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
        if (!Stays(**it) || (*it)->request->priority != newcomer_.priority || !IsRicher(*(*it)->request)) continue;
        if (victim == nullptr || RowsOf(*(*it)->request, 0) > RowsOf(*victim->request, 0)) victim = it->get();
      }
      if (victim == nullptr) return;
      Take(*victim, PreemptionReason::kFairness);
    }
  }

  // None: all of them would not suffice. Nobody: those who leave already do.
  std::optional<std::vector<Victim>> TakeVictims() {
    if (!IsEnough()) return std::nullopt;
    return std::move(victims_);
  }

 private:
  bool IsEnough() const { return slots_ > 0 && missing_blocks_ <= 0; }
  bool Stays(const Sequence& sequence) const {
    return sequence.leaving == Sequence::Leaving::kNo &&
           std::none_of(victims_.begin(), victims_.end(), [&](const Victim& v) { return v.sequence == &sequence; });
  }

  // On all replicas, for its tenant's weight, with `more` than now.
  double RowsOf(const Request& request, int more) const {
    const auto gone = gone_.find(request.account);
    const int64_t rows = request.account->num_running - (gone == gone_.end() ? 0 : gone->second);
    return static_cast<double>(rows + more) / request.account->policy.weight;
  }
  bool IsRicher(const Request& request) const {
    const TenantAccount &other = *request.account, &own = *newcomer_.account;
    const Priority priority = newcomer_.priority;
    if (&other == &own || other.CounterIn(priority) < own.EvenFrom(priority, own.policy.weight)) return false;
    if (own.CounterIn(priority) < other.EvenFrom(priority, other.policy.weight)) return RowsOf(request, -1) > 0;
    return RowsOf(request, -1) >= RowsOf(newcomer_, 1);
  }

  void Take(Sequence& victim, PreemptionReason reason) {
    AddRoom(1, victim.blocks.size() + 1);
    AddGone(*victim.request);
    victims_.push_back({&victim, reason});
  }

  const std::vector<std::unique_ptr<Sequence>>& running_;
  const Request& newcomer_;
  int slots_ = 0;
  int missing_blocks_;
  absl::flat_hash_map<const TenantAccount*, int64_t> gone_;
  std::vector<Victim> victims_;
};

}  // namespace

Verdict Scheduler::Judge(const Request& request, bool may_preempt) {
  room_for_.reset();
  if (request.progress.suspect_until.has_value() && HasSuspect()) return Verdict::kPass;
  if (WaitsForPrefix(request)) return Verdict::kPass;
  // With nobody left to grow, nobody's growth is waited for.
  const bool is_short = short_of_blocks_ && !running_.empty();
  if (is_short || StepIsFull(request)) return Verdict::kBlocked;
  const Compared compared = Compare(request);
  if (!IsKnownMisfit(request, compared, may_preempt)) {
    if (MakeRoom(request, may_preempt)) return Verdict::kTake;
    if (makes_room()) return Verdict::kBlocked;
    misfits_[request.id] = {compared, may_preempt};
  }
  return NumFreeRows() == 0 ? Verdict::kBlocked : Verdict::kTooLarge;
}

bool Scheduler::IsKnownMisfit(const Request& request, const Compared& compared, bool may_preempt) const {
  const auto misfit = misfits_.find(request.id);
  return misfit != misfits_.end() && misfit->second.compared == compared &&
         (misfit->second.could_preempt || !may_preempt);
}

// The sequences of its class that run; of those that have ended the queue was told, and may have forgotten the tenant.
Scheduler::Compared Scheduler::Compare(const Request& request) const {
  Compared compared{.own_rows = RowsOf(request)};
  if (request.account == nullptr) return compared;
  const auto even_from = [&request](const Request& of) {
    return of.account->EvenFrom(request.priority, of.account->policy.weight);
  };
  for (const auto& sequence : running_) {
    const Request& other = *sequence->request;
    if (sequence->leaving == Sequence::Leaving::kFinished || other.priority != request.priority) continue;
    compared.num_served_less += ServedOf(other) < even_from(request) ? 1 : 0;
    compared.num_served_more += ServedOf(request) < even_from(other) ? 1 : 0;
    compared.rows += RowsOf(other) * RowsOf(other);
  }
  return compared;
}

bool Scheduler::HasSuspect() const {
  return std::any_of(running_.begin(), running_.end(),
                     [](const auto& s) { return s->request->progress.suspect_until.has_value(); });
}

// Lower classes don't count, nor do tenants that were served more: they get what the others leave. A tenant that runs
// nothing has its part in any case.
bool Scheduler::StepIsFull(const Request& newcomer) const {
  if (newcomer.account != nullptr && newcomer.account->num_running == 0) return false;
  const int most = limits_.max_num_batched_tokens;
  const int share = std::clamp(most / 8, 1, kPromptShare);
  int promised = 0;
  for (const auto& sequence : running_) {
    const Request& other = *sequence->request;
    if (sequence->leaving != Sequence::Leaving::kNo || other.priority < newcomer.priority) continue;
    if (WasServedMore(other, newcomer)) continue;
    promised += std::min(share, sequence->num_uncomputed());
  }
  return promised >= most;
}

// Blocks that this request can take up at most. Its last known token is always computed anew, because the logits behind
// it are wanted; so are all of a prompt that is still to be scored.
int Scheduler::NumShareable(const Request& request) const {
  if (request.sampling.score_prompt && request.progress.num_scored + 1 < static_cast<int>(request.prompt.size())) {
    return 0;
  }
  return std::min(static_cast<int>(request.prefix_keys.size()), (KnownTokens(request) - 1) / limits_.block_size);
}

// By bisection, since the end of a prefix is evicted first. Where two computed the same, there may be a hole; then this
// is a guess.
int Scheduler::NumCachedBlocks(const Request& request) const {
  const auto begin = request.prefix_keys.begin();
  const auto missing = std::partition_point(begin, begin + NumShareable(request),
                                            [this](const PrefixKey& key) { return pool_.Has(key); });
  return static_cast<int>(missing - begin);
}

bool Scheduler::WaitsForPrefix(const Request& request) const {
  if (computing_.empty()) return false;
  const int num_cached = NumCachedBlocks(request);
  if (num_cached == NumShareable(request)) return false;
  const auto computing = computing_.find(request.prefix_keys[static_cast<size_t>(num_cached)]);
  // One of a lower class may take for ever.
  return computing != computing_.end() && computing->second->request->priority >= request.priority;
}

// Of the blocks that are available; those it takes up from the cache are among them. Looks at each block, as taking up
// does: one may have been evicted before the one that follows it, where two sequences computed the same.
int Scheduler::NumNeededBlocks(const Request& request) const {
  const int most = NumShareable(request);
  int held_by_others = 0;
  for (int block = 0; block < most; ++block) {
    const PrefixKey& key = request.prefix_keys[static_cast<size_t>(block)];
    if (pool_.IsHeld(key)) {
      ++held_by_others;
    } else if (!pool_.Has(key)) {
      break;
    }
  }
  return NumBlocks(KnownTokens(request)) - held_by_others;
}

// A slot and the blocks it needs are free, and one more block for each that runs, or the newcomer would be preempted at
// once. If not, those who must give way to it do, if that suffices; where enough of them are leaving already, they are
// waited for.
bool Scheduler::MakeRoom(const Request& request, bool may_preempt) {
  while (true) {
    const int num_blocks = NumNeededBlocks(request);  // each time: it may have to hold alone what a victim held too
    if (HasRoom(num_blocks)) {
      room_for_.reset();
      return true;
    }
    if (!may_preempt) return false;
    const std::optional<std::vector<Victim>> victims = VictimsFor(request, num_blocks);
    if (!victims.has_value()) return false;
    room_for_ = {request.priority, ServedOf(request)};
    if (victims->empty()) return false;
    for (const Victim& victim : *victims) Preempt(*victim.sequence, victim.reason);
    SweepLeaving();
  }
}

int Scheduler::NumFreeRows() const {
  const int left = max_running_ - static_cast<int>(running_.size());
  return std::clamp(left, 0, static_cast<int>(free_slots_.size()));
}

bool Scheduler::HasRoom(int num_blocks) const {
  return NumFreeRows() > 0 && num_blocks + static_cast<int>(running_.size()) <= pool_.num_available();
}

std::optional<std::vector<Victim>> Scheduler::VictimsFor(const Request& request, int num_blocks) const {
  VictimSearch search(running_, request, num_blocks, max_running_ - row_pacer_.max_rows());
  search.AddRoom(NumFreeRows(), pool_.num_available() - static_cast<int>(running_.size()));
  for (const auto& preempted : preempted_) search.AddGone(*preempted);
  search.TakeFromLowerClasses();
  search.TakeFromRicherTenants();
  return search.TakeVictims();
}

void Scheduler::TakeUpPrefix(Sequence& sequence) {
  const int most = NumShareable(*sequence.request);
  int block = 0;
  while (block < most && sequence.blocks.TakeUp(sequence.prefix_keys[static_cast<size_t>(block)],
                                                BlockTokens(sequence.tokens, block))) {
    ++block;
  }
  sequence.num_registered = block;
  sequence.num_computed = sequence.num_scheduled = block * limits_.block_size;
  for (; block < most; ++block) {
    const Sequence*& owner = computing_[sequence.prefix_keys[static_cast<size_t>(block)]];
    if (owner == nullptr || owner->request->priority < sequence.request->priority) owner = &sequence;
  }
}

// What is computed by now may be taken up by others.
void Scheduler::RegisterBlocks(Sequence& sequence) {
  const std::optional<PrefixKey>& scope = sequence.request->prefix_scope;
  if (!scope.has_value()) return;
  std::vector<PrefixKey>& keys = sequence.prefix_keys;
  const int num_tokens = std::min(sequence.num_computed, sequence.num_known());
  for (int& block = sequence.num_registered; (block + 1) * limits_.block_size <= num_tokens; ++block) {
    const auto i = static_cast<size_t>(block);
    const absl::Span<const int32_t> tokens = BlockTokens(sequence.tokens, block);
    if (i == keys.size()) keys.push_back(NextPrefixKey(keys.empty() ? *scope : keys.back(), tokens));
    pool_.Register(sequence.blocks.ids()[i], keys[i], tokens);
    const auto computing = computing_.find(keys[i]);
    if (computing != computing_.end() && computing->second == &sequence) computing_.erase(computing);
  }
}

// It won't compute what it promised; who waits for that computes it.
void Scheduler::ForgetComputing(const Sequence& sequence) {
  const int most = NumShareable(*sequence.request);
  for (int block = sequence.num_registered; block < most; ++block) {
    const auto computing = computing_.find(sequence.prefix_keys[static_cast<size_t>(block)]);
    if (computing != computing_.end() && computing->second == &sequence) computing_.erase(computing);
  }
}

}  // namespace weft
