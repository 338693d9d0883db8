// The part of Scheduler that says who may start, what a newcomer can take up, and who gives way to it.
#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "scheduler/scheduler.h"
#include "scheduler/tenant_account.h"

namespace weft {
namespace {

// Of a step's prompt tokens, what each prompt under way ought to get at least: more prompts at once would only make all
// of them slow, and what isn't taken on yet can still be ordered.
constexpr int kPromptShare = 64;

int KnownTokens(const Request& request) {
  return static_cast<int>(request.prompt.size() + request.progress.output.size());
}

}  // namespace

Verdict Scheduler::Judge(const Request& request) {
  if (request.progress.suspect_until.has_value() && HasSuspect()) return Verdict::kPass;
  if (WaitsForPrefix(request)) return Verdict::kPass;
  // With nobody left to grow, nobody's growth is waited for.
  const bool is_short = short_of_blocks_ && !running_.empty();
  if (is_short || StepIsFull(request) || request.id == blocked_id_) return Verdict::kBlocked;
  if (MakeRoom(request)) return Verdict::kTake;
  blocked_id_ = request.id;
  return Verdict::kBlocked;
}

bool Scheduler::HasSuspect() const {
  return std::any_of(running_.begin(), running_.end(),
                     [](const auto& s) { return s->request->progress.suspect_until.has_value(); });
}

// Lower classes don't count: they get what the others leave. A tenant that runs nothing has its part in any case.
bool Scheduler::StepIsFull(const Request& newcomer) const {
  if (newcomer.account != nullptr && newcomer.account->num_running == 0) return false;
  const int most = limits_.max_num_batched_tokens;
  const int share = std::clamp(most / 8, 1, kPromptShare);
  int promised = 0;
  for (const auto& sequence : running_) {
    if (sequence->leaving != Sequence::Leaving::kNo || sequence->request->priority < newcomer.priority) continue;
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
  return num_cached < NumShareable(request) &&
         computing_.contains(request.prefix_keys[static_cast<size_t>(num_cached)]);
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
// once. If not, those who must give way to it do, if that suffices.
bool Scheduler::MakeRoom(const Request& request) {
  const int num_blocks = NumNeededBlocks(request);
  if (HasRoom(num_blocks)) return true;
  for (const auto& [victim, reason] : VictimsFor(request, num_blocks)) Preempt(*victim, reason);
  SweepLeaving();
  return HasRoom(NumNeededBlocks(request));  // it may have to hold alone what a victim held too
}

bool Scheduler::HasRoom(int num_blocks) const {
  return !free_slots_.empty() && num_blocks + static_cast<int>(running_.size()) <= pool_.num_available();
}

std::vector<std::pair<Sequence*, PreemptionReason>> Scheduler::VictimsFor(const Request& request,
                                                                          int num_blocks) const {
  int slots = static_cast<int>(free_slots_.size());
  int blocks = pool_.num_available() - static_cast<int>(running_.size());
  absl::flat_hash_map<const TenantAccount*, int> rows;  // of each tenant that keeps its row
  for (const auto& sequence : running_) {
    if (sequence->leaving == Sequence::Leaving::kNo) {
      ++rows[sequence->request->account];
    } else {
      ++slots;
      blocks += sequence->blocks.size();
    }
  }
  const bool tenant_has_none = request.account != nullptr && request.account->num_running == 0;
  std::vector<std::pair<Sequence*, PreemptionReason>> victims;
  const auto enough = [&] { return slots > 0 && blocks >= num_blocks; };
  const auto take = [&](Sequence& victim, PreemptionReason reason) {
    victims.emplace_back(&victim, reason);
    --rows[victim.request->account];
    ++slots;
    blocks += victim.blocks.size() + 1;
  };
  for (auto it = running_.rbegin(); it != running_.rend() && !enough(); ++it) {
    Sequence& sequence = **it;
    if (sequence.leaving == Sequence::Leaving::kNo && sequence.request->priority < request.priority) {
      take(sequence, PreemptionReason::kPriority);
    }
  }
  // A tenant that runs nothing takes from the one that runs the most, as long as that keeps one.
  while (tenant_has_none && !enough()) {
    Sequence* victim = nullptr;
    for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
      Sequence& sequence = **it;
      if (sequence.leaving != Sequence::Leaving::kNo || sequence.request->priority != request.priority) continue;
      const int own = rows[sequence.request->account];
      const bool taken =
          std::any_of(victims.begin(), victims.end(), [&](const auto& v) { return v.first == &sequence; });
      if (taken || own < 2) continue;
      if (victim == nullptr || own > rows[victim->request->account]) victim = &sequence;
    }
    if (victim == nullptr) break;
    take(*victim, PreemptionReason::kFairness);
  }
  return enough() ? victims : std::vector<std::pair<Sequence*, PreemptionReason>>();
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
    computing_.try_emplace(sequence.prefix_keys[static_cast<size_t>(block)], &sequence);
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
